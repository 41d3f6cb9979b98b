"""Films that stay where they are, and what DVC then keeps, pushes and says."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from small_project import TINY, assert_cache_is_whole, commit, make_checkout, run

from pulmo.base.files import sha256_file
from pulmo.experiments.doctor import check_data
from pulmo.experiments.project import Project
from pulmo.films.places import LIST
from pulmo.sources import phantom

pytestmark = pytest.mark.slow


def fail(folder: Path, *command: str) -> str:
    """What a command that must not succeed says."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


def contents(folder: Path) -> set[str]:
    """The hash of every file in a folder."""
    return {sha256_file(file) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A folder of 60 films."""
    phantom.fetch(tmp_path / "hospital", 60, 3)
    return tmp_path / "hospital"


def test_films_stay_where_they_are(hospital: Path, tmp_path: Path) -> None:
    folder = {"path": str(hospital), "in_place": True}
    here = make_checkout(tmp_path / "here", TINY, {"data": {"source": "folder", "folder": folder}})
    films = contents(hospital)
    run(here, "dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    run(here, "dvc", "repro", "split", "preprocess")
    commit(here, "The data")
    run(here, "dvc", "push")
    assert [file.name for file in (here / "data/raw").rglob("*")] == [LIST]
    assert not films & (contents(here) | contents(tmp_path / "remote"))
    assert check_data(Project(here)).text.endswith("; 60 films are read in place")
    images = np.load(here / "data/processed/images.npy")
    assert all(file.stat().st_nlink > 1 or file.is_symlink() for file in (here / "data").rglob("*.*"))

    run(tmp_path, "git", "clone", "--quiet", str(here), str(tmp_path / "there"))
    run(tmp_path / "there", "dvc", "remote", "modify", "store", "url", str(tmp_path / "remote"))
    run(tmp_path / "there", "dvc", "pull", "download", "split", "preprocess")
    assert "up to date" in run(tmp_path / "there", "dvc", "repro", "split", "preprocess")

    first, *others = sorted(pd.read_csv(here / "data/films.csv").path)
    ImageOps.mirror(Image.open(hospital / first)).save(hospital / "train/NORMAL/IM-9999-0001.jpeg")
    run(here, "dvc", "repro", "--force", "download")
    assert "61 of the films were decoded before" in run(here, "dvc", "repro", "split", "preprocess")
    np.testing.assert_array_equal(np.load(here / "data/processed/images.npy")[0], images[0])

    film = (hospital / first).read_bytes()
    (hospital / first).write_bytes((hospital / others[-1]).read_bytes())
    assert check_data(Project(here)).text.startswith("1 of 61 films read in place have changed or are gone")
    (here / "params.yaml").write_text((here / "params.yaml").read_text().replace("fit: squash", "fit: crop"))
    said = fail(here, "dvc", "repro", "preprocess")
    assert f"1 of 61 films are not as they were: {hospital / first} has changed\n\nhint: put them back" in said
    (hospital / first).write_bytes(film)
    run(here, "dvc", "repro", "preprocess")
    assert_cache_is_whole(here)
