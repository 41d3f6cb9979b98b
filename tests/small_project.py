"""A pipeline of a minute's work cut down to seconds: few phantom films, small images, a short training."""

import hashlib
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml_text

ROOT = Path(__file__).resolve().parents[1]
permissions_bind = pytest.mark.skipif(
    os.geteuid() == 0,
    reason="root writes into read-only folders all the same; the GitHub workflow, an ordinary user, runs this, and the "
    "same refusals (EACCES, EROFS) are injected for everybody in test_stages.py",
)
PULMO = (sys.executable, "-c", "from pulmo.cli import main; main()")
STAGES = ("download", "split", "preprocess", "train", "evaluate")
CLONED = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "pyproject.toml",
    "recipes",
    "src",
    "stages",
    "sweeps",
)

SMALL: dict[str, Any] = {
    "data": {"phantom": {"films": 90}},
    "split": {"val_fraction": 0.25},
    "preprocess": {"size": 48, "workers": 1},
    "train": {"arch": "squeezenet1_1", "epochs": 2, "batch_size": 16, "precision": "fp32", "devices": 1},
    "evaluate": {"tta_views": 2, "bootstrap": 100, "rendered_films": 20, "robustness_films": 20, "explain_films": 8},
}
# Laid over SMALL where only what surrounds a training matters.
TINY: dict[str, Any] = {
    "data": {"phantom": {"films": 60}},
    "evaluate": {"bootstrap": 100, "rendered_films": 0, "robustness_films": 0, "explain_films": 0},
}


def write_params(folder: Path, *overlays: dict[str, Any]) -> None:
    """params.yaml of the repository with SMALL and then `overlays` laid over it."""
    params = yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for overlay in (SMALL, *overlays):
        _merge(params, overlay)
    (folder / "params.yaml").write_text(yaml_text.dump(params), encoding="utf-8")


def run_stage(name: str, folder: Path) -> None:
    """Run a stage in this process with `folder` as its working directory; raises SystemExit as the stage does."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    try:
        runpy.run_path(str(ROOT / "stages" / f"{name}.py"), run_name="__main__")
    finally:
        os.chdir(before)
        sys.path[:] = path


def copy_project(source: Path, target: Path) -> Path:
    """A copy of a small project, to spoil."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def make_checkout(folder: Path, *overlays: dict[str, Any]) -> Path:
    """A Git repository with the code of the working tree and small params in its one commit; nothing has run in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLONED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    write_params(folder, *overlays)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "tester"), ("user.email", "tester@example.org")):
        run(folder, "git", "config", key, value)
    commit(folder, "A small project")
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def run(folder: Path, *command: str, **variables: str) -> str:
    """Standard output of a command that must succeed in `folder`, with this Python first in the path.

    The output goes through files: a process that DVC leaves in the background would hold a pipe open for ever.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_TRACKING"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**inherited, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1", **variables}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=error)
        for file in (out, error):
            file.seek(0)
        said = out.read()
        assert done.returncode == 0, f"{' '.join(command)}: {said[-3000:]}{error.read()[-3000:]}"
    return said


def assert_cache_is_whole(folder: Path) -> None:
    """Every object of DVC's cache has the content that its name tells."""
    objects = [file for file in (folder / ".dvc/cache/files/md5").rglob("*") if file.is_file()]
    assert objects
    for file in objects:
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        assert file.parent.name + file.name.removesuffix(".dir") == digest, file


def run_queued(folder: Path, jobs: int, limit: int = 600, **variables: str) -> None:
    """Run all queued experiments, `jobs` at a time; returns when the last one has ended, and fails after `limit` s."""
    run(folder, "dvc", "queue", "start", "--jobs", str(jobs), **variables)
    end = time.monotonic() + limit
    while "Queued" in (status := run(folder, "dvc", "queue", "status")) or "Running" in status:
        assert time.monotonic() < end, status
        time.sleep(2)


@contextmanager
def running_server(*command: str, ready: str, folder: Path, limit: int = 120, **variables: str) -> Iterator[str]:
    """A server on loopback, PORT in its command replaced by a free port; yields its address once `ready` answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / f"server-{port}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.replace("PORT", port) for part in command)],
            cwd=folder,
            env={**os.environ, "PATH": path, **variables},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/{ready}", process, log, limit)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_for(address: str, process: "subprocess.Popen[Any]", log: Path, limit: int = 120) -> None:
    """Return once an address answers; AssertionError, with the end of the log, where its process ends or lingers."""
    end = time.monotonic() + limit
    while not _answers(address):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict):
            _merge(base[key], value)
        else:
            base[key] = value


def kill_all(program: "subprocess.Popen[str]") -> None:
    """Kill a program, and then what it had started: some of it ends by itself meanwhile."""
    for process in (program, *psutil.Process(program.pid).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
