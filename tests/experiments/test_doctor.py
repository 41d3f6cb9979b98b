import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from small_project import ROOT, run
from toy_project import PIPELINE, STAGE, make_toy
from toy_settings import SECRET_ADDRESSES
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.base.files import write_csv
from pulmo.experiments import doctor
from pulmo.experiments.checks.finding import Finding
from pulmo.experiments.dvc import Dvc
from pulmo.experiments.project import Project
from pulmo.images.manifest import describe_films
from pulmo.sources.folder import fetch
from pulmo.tracking.runs import train_run


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository without a commit, whose owner git knows."""
    for key, value in (("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig")), ("GIT_CONFIG_NOSYSTEM", "1")):
        monkeypatch.setenv(key, value)
    (tmp_path / "gitconfig").write_text("[user]\n\tname = t\n\temail = t@example.org\n")
    git(tmp_path, "init", "--quiet", "repository")
    return tmp_path / "repository"


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_git_without_repository_commit_history_or_name(repository, tmp_path, monkeypatch):
    assert doctor.check_git(Project(tmp_path)).text.endswith("is no git repository")
    assert doctor.check_git(Project(repository)) == Finding(
        "error", "the repository has no commit", "git add -A && git commit -m start"
    )
    for number in range(2):
        git(repository, "commit", "--allow-empty", "-m", str(number))
    assert doctor.check_git(Project(repository)).state == "ok"
    git(tmp_path, "clone", "--depth", "1", repository.as_uri(), "shallow")
    assert doctor.check_git(Project(tmp_path / "shallow")).cure == "git fetch --unshallow"
    (tmp_path / "gitconfig").write_text("")
    assert doctor.check_git(Project(repository)).state == "warning"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_git(Project(repository)).text == "git is not installed"


def test_versions_outside_the_ranges_are_named(tmp_path):
    assert doctor.check_versions(Project(ROOT)).state == "ok"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.99"\ndependencies = ["dvc<1", "no-such-thing-here", "numpy>=1"]'
    )
    state, text, cure = doctor.check_versions(Project(tmp_path))
    assert state == "error"
    assert text.startswith("python 3.")
    assert "no-such-thing-here missing" in text
    assert "(wanted <1)" in text
    assert "numpy" not in text
    assert "make repro" in cure


def test_another_python_in_the_path_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert doctor.check_environment(Project(tmp_path)).state == "ok"
    (tmp_path / "python").write_text("#!/bin/sh\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_environment(Project(tmp_path)).cure.startswith("source .venv")


def test_what_is_no_project_and_a_missing_environment_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    ((name, found),) = doctor.examine(Project(tmp_path))
    assert (name, found.state) == ("project", "error")
    assert "is not a Pulmo project: it has no .dvc, dvc.yaml and 2 more" in found.text
    assert doctor.check_project(Project(ROOT)).state == "ok"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no virtual environment is active: stages would run no python at all" in (
        doctor.check_environment(Project(tmp_path)).text
    )
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert doctor.check_environment(Project(tmp_path)).text.startswith("stages would run")


def test_what_needs_git_is_not_looked_at_without_it(tmp_path):
    checks = {"git": doctor.check_git, "data": doctor.check_data, "results": doctor.check_results}
    assert [name for name, _ in doctor.examine(Project(tmp_path), checks)] == ["git"]


def test_plots_without_their_page_are_told(tmp_path):
    assert doctor.check_plots(Project(tmp_path)).cure == "pulmo setup"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/plots.html").write_text("")
    (tmp_path / ".dvc/config.local").write_text("[plots]\n    html_template = plots.html\n")
    assert doctor.check_plots(Project(tmp_path)).state == "ok"


def test_an_older_mlflows_folder_is_an_error(tmp_path):
    assert doctor.check_leftover(Project(tmp_path)).state == "ok"
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    assert doctor.check_leftover(Project(tmp_path)).state == "ok"
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    assert doctor.check_leftover(Project(tmp_path)) == Finding(
        "error", "a leftover mlruns/ hides the store from `mlflow ui`", "mv mlruns mlruns.old"
    )


def test_a_store_that_is_none_is_told_with_its_cure(tmp_path):
    assert "the first run makes it" in doctor.check_store(Project(tmp_path)).text
    assert doctor.check_open_runs(Project(tmp_path)).state == "ok"
    (tmp_path / "mlflow.db").write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(
        UserError,
        match=r"(?s)^the MLflow .* file is not a database\n\nhint: mv \S*mlflow.db \S*mlflow.db.bad; pulmo",
    ):
        doctor.check_store(Project(tmp_path))


@pytest.mark.slow
def test_a_store_is_probed_by_writing(tmp_path):
    with train_run(tmp_path, {"a": 1}, {}) as left:
        left.set_tags({"pulmo.pid": 2**22 - 1, "pulmo.pid_started": 1})
        assert doctor.check_store(Project(tmp_path)) == Finding("ok", "mlflow.db takes runs, and holds 1")
        found = doctor.check_open_runs(Project(tmp_path))
        assert (found.state, found.cure) == ("warning", "pulmo sync")
        assert left.name in found.text
        left.set_tags({"pulmo.host": "another"})
        assert doctor.check_open_runs(Project(tmp_path)).text == "no run was left open; 1 RUNNING on other machines"
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "whole.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as file:  # as a kill in the middle of its making leaves it
        file.execute("DROP TABLE experiment_tags")
    file.close()
    with pytest.raises(UserError, match=r"(?s)no such table.*mlflow.db.bad"):
        doctor.check_store(Project(tmp_path))
    older = tmp_path / "older"  # elsewhere: MLflow looks at the version of a file once per process
    older.mkdir()
    shutil.copy(tmp_path / "whole.db", older / "mlflow.db")
    with sqlite3.connect(older / "mlflow.db") as file:
        file.execute("UPDATE alembic_version SET version_num = '0a8213491aaa'")
    file.close()
    with pytest.raises(
        UserError, match=r"(?s)an older MLflow made it\n\nhint: mlflow db upgrade sqlite:///.*older/mlflow.db$"
    ):
        doctor.check_store(Project(older))
    newer = older.rename(tmp_path / "newer")
    with sqlite3.connect(newer / "mlflow.db") as file:
        file.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    file.close()
    with pytest.raises(UserError, match=r"(?s)a newer MLflow made it\n\nhint: install that version"):
        doctor.check_store(Project(newer))


def test_a_relative_store_and_a_silent_server_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert "='sqlite:////an X-ray/mlflow.db'," in doctor.check_store(Project(Path("/an X-ray"))).cure
    assert f"sqlite:///{tmp_path}/mlflow.db" in doctor.check_store(Project(tmp_path)).cure
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UserError, match=r"(?s)refused\n\nhint: start its server, correct MLFLOW_TRACKING_URI"):
            doctor.check_store(Project(tmp_path))


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_no_check_tells_more_of_an_address_than_scheme_and_host(address, tmp_path, monkeypatch):
    class Talkative(Dvc):
        def run(self, *arguments: str) -> str:
            return f"Cache directory: ext4\nRemotes: {address}, s3\n"

        def cache_folder(self) -> Path:
            return self.root / ".dvc/cache"

    shown = "postgresql//host" if address.startswith("postgresql") else "https://host"
    text = doctor.check_cache(Project(tmp_path, Talkative(tmp_path))).text
    assert f"remotes: {shown}" in text
    assert "secret" not in text
    client = SimpleNamespace(set_experiment_tag=lambda *_: None)

    class Remote(Project):
        store = SimpleNamespace(uri=address, root=tmp_path, client=client, experiment="1", find_runs=lambda: [1, 2, 3])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert doctor.check_store(Remote(tmp_path)) == Finding("ok", f"{shown} takes runs, and holds 3")


def test_a_relative_store_keeps_its_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db?key=secret")
    found = doctor.check_store(Project(tmp_path))
    assert "MLFLOW_TRACKING_URI=sqlite:///mlflow.db is relative" in found.text
    assert "secret" not in found.text


def test_a_server_that_never_answers_is_told_in_seconds_and_asked_once(tmp_path, monkeypatch):
    for key in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(key, "0" if "RETRIES" in key else "1")
    checks = {"store": doctor.check_store, "open runs": doctor.check_open_runs}
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        ((name, found),) = doctor.examine(Project(tmp_path), checks)
    assert time.monotonic() - started < 20
    assert (name, found.state) == ("store", "error")
    assert "secret" not in found.text


@pytest.mark.parametrize(("free", "state"), [(0.5, "error"), (3, "warning"), (50, "ok")])
def test_room_on_the_disk(free, state, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(free * 2**30)))
    found = doctor.check_disk(Project(Path()))
    assert found.state == state
    assert bool(found.cure) == (state != "ok")


def test_a_gpu_that_torch_does_not_see(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_compute(Project(tmp_path)).state == "ok"
    assert doctor.check_compute(Project(tmp_path)).text.endswith(("fp32", "bf16"))
    (tmp_path / "nvidia-smi").write_text("")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert doctor.check_compute(Project(tmp_path)).state == "warning"


@pytest.mark.slow
def test_outputs_that_are_gone_changed_or_nowhere(tmp_path):
    toy = make_toy(tmp_path / "toy")
    assert doctor.check_data(Project(toy)) == Finding("ok", "every output is there and in the cache")
    assert "remotes: None" in doctor.check_cache(Project(toy)).text
    history = toy / "reports" / "history.csv"
    history.unlink()
    assert doctor.check_data(Project(toy)) == Finding("warning", "reports/history.csv missing", "dvc checkout")
    run(toy, "dvc", "checkout")
    history.unlink()
    history.write_text("changed")
    assert doctor.check_data(Project(toy)).text == "reports/history.csv changed by hand"
    shutil.rmtree(toy / ".dvc" / "cache")
    assert doctor.check_data(Project(toy)).cure.startswith("dvc pull")


FOLDER = (
    STAGE
    + """
for name in ("a.txt", "b.txt"):
    pathlib.Path("films").mkdir(exist_ok=True)
    pathlib.Path("films", name).write_text(name * 1000)
"""
)


def flip(file: Path) -> None:
    """Change a bit, and neither size nor time."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.slow
def test_what_dvc_takes_for_unchanged_is_read_and_the_cures_cure(tmp_path):
    toy = make_toy(tmp_path / "toy", FOLDER, PIPELINE.replace("    outs:\n", "    outs:\n      - films\n"))
    project, film = Project(toy), toy / "films/a.txt"
    assert doctor.check_contents(project) == Finding("ok", "6 files hold what DVC recorded")
    whole = film.read_bytes()
    flip(film)
    assert doctor.check_data(project).state == "ok", "DVC itself sees nothing"
    found = doctor.check_contents(project)
    assert found == Finding("error", "films/a.txt not as DVC recorded", "rm -f films/a.txt && dvc checkout films")
    run(toy, "bash", "-c", found.cure)
    assert film.read_bytes() == whole
    (copy,) = (file for file in (toy / ".dvc/cache").rglob("*") if file.is_file() and file.read_bytes() == whole)
    for file in (film, copy, toy / "reports/metrics.json"):
        flip(file)
    found = doctor.check_contents(project)
    assert found.text == f"{copy.relative_to(toy)}, films/a.txt and 1 more not as DVC recorded"
    assert found.cure.startswith("rm -f films/a.txt reports/metrics.json ")
    assert found.cure.endswith("; dvc pull (from a remote), or dvc repro")
    run(toy, "bash", "-c", found.cure.replace("dvc pull (from a remote), or ", ""))
    assert film.read_bytes() == whole
    assert doctor.check_contents(project).state == "ok"
    (listing,) = (toy / ".dvc/cache").rglob("*.dir")
    flip(listing)
    assert str(listing.relative_to(toy)) in doctor.check_contents(project).text
    listing.unlink()
    run(toy, "dvc", "config", "cache.type", "hardlink")
    run(toy, "dvc", "repro", "--force", "--quiet")
    flip(film)
    assert doctor.check_contents(project).text == "films/a.txt not as DVC recorded", "one file of two names"


def test_films_read_in_place_are_looked_at(tmp_path):
    own = tmp_path / "own/NORMAL/a.png"
    own.parent.mkdir(parents=True)
    Image.new("L", (9, 9)).save(own)
    (tmp_path / "data/raw").mkdir(parents=True)
    listed, _ = fetch(tmp_path / "data/raw", tmp_path / "own", in_place=True)
    write_csv(tmp_path / "data/films.csv", describe_films(tmp_path / "data/raw", listed))
    project = SimpleNamespace(root=tmp_path, dvc=SimpleNamespace(run=lambda *_: "{}"))
    assert doctor.check_data(project).text == "every output is there and in the cache; 1 films are read in place"
    own.unlink()
    state, text, cure = doctor.check_data(project)
    assert (state, text) == ("warning", f"1 of 1 films read in place have changed or are gone, {own} for one")
    assert "dvc repro --force download" in cure


def test_the_command_prints_a_line_each_and_fails_only_for_errors(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("train: 1")
    monkeypatch.chdir(tmp_path)
    checks = {"params": doctor.check_params, "disk": lambda root: Finding("warning", "little room", "dvc gc")}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 1
    first, second = done.output.splitlines()
    assert first.startswith("error    params ")
    assert "params.yaml" in first
    assert second == "warning  disk         little room  ->  dvc gc"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert CliRunner().invoke(cli.app, ["doctor"]).exit_code == 0


def test_every_check_is_in_the_list():
    written = {value for name, value in vars(doctor).items() if name.startswith("check_")}
    assert written == {*doctor.CHECKS.values(), *doctor.DEEP.values()}
