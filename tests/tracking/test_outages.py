"""A store that fails while a stage runs, or was deleted before it: the stage goes on where it can, and sync repairs."""

import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_project import copy_project, run, run_stage, wait_for
from toy_project import PARAMS, make_toy
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.experiments.checks.store import check_store
from pulmo.experiments.project import Project
from pulmo.experiments.sync import sync_store
from pulmo.tracking.runs import train_run
from pulmo.tracking.store import EXPERIMENT, open_store

ROWS = [{"epoch": epoch, "val_loss": 1 / epoch, "val_auroc": 0.5 + epoch / 10} for epoch in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(empty_store, tmp_path, monkeypatch):
    empty_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def delete_experiment(root: Path) -> str:
    """Delete the experiment as one click on its page does; returns its id."""
    store = open_store(root)
    store.client.delete_experiment(store.experiment)
    return store.experiment


def epochs(store, run_id: str) -> list[int]:
    return [point.step for point in store.client.get_metric_history(run_id, "epoch/val_loss")]


def warnings(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


@pytest.mark.slow
def test_a_deleted_experiment_is_one_message_whose_command_brings_it_back(root):
    number = delete_experiment(root)
    with pytest.raises(UserError, match=f"the MLflow experiment '{EXPERIMENT}' of .* was deleted") as error:
        open_store(root)
    command = error.value.hint.split("`")[1]
    assert command.endswith(f"mlflow experiments restore --experiment-id {number}")
    subprocess.run(
        command.replace("mlflow experiments", f"{shlex.quote(sys.executable)} -m mlflow experiments"),
        shell=True,
        check=True,
        cwd=root.parent,  # from anywhere
    )
    assert open_store(root).experiment == number


@pytest.mark.parametrize("command", [["sync"], ["ui", "--no-browser"], ["history"]])
def test_commands_name_a_deleted_experiment(root, command):
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "init", "--quiet")
    delete_experiment(root)
    done = CliRunner().invoke(cli.app, command)
    assert isinstance(done.exception, UserError)
    assert "mlflow experiments restore" in done.exception.hint


def test_doctor_names_a_deleted_experiment(root):
    delete_experiment(root)
    with pytest.raises(UserError, match="was deleted") as error:
        check_store(Project(root))
    assert "mlflow experiments restore" in error.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_stages_name_a_deleted_experiment(project, tmp_path, stage):
    folder = copy_project(project, tmp_path / "copy")
    delete_experiment(folder)
    with pytest.raises(SystemExit, match=r"(?s)^error: the MLflow experiment .*hint: .*mlflow experiments restore"):
        run_stage(stage, folder)


def test_a_training_whose_run_is_deleted_goes_on(root, capsys):
    store = open_store(root)
    with train_run(root, {"a": 1}, {}) as opened:
        opened.log_epoch(ROWS[0])
        store.client.delete_run(opened.run_id)
        for row in ROWS[1:]:
            opened.log_epoch(row)
    lines = warnings(capsys)
    assert len(lines) == 2, "one where it began, one at the end"
    assert "the run, or its experiment, was deleted; this stage goes on without it" in lines[0]
    assert "is not complete; `pulmo sync` completes it" in lines[1]


def test_what_a_store_missed_it_gets_once_it_can_be_used_again(root, capsys):
    store = open_store(root)
    with train_run(root, {"a": 1}, {}) as opened:
        opened.log_epoch(ROWS[0])
        store.client.delete_run(opened.run_id)
        opened.log_epoch(ROWS[1])
        opened.set_tags({"later": "yes"})
        store.client.restore_run(opened.run_id)
        time.sleep(0.5)
        opened.log_epoch(ROWS[2])
    assert "can be used again" in warnings(capsys)[-1]
    assert epochs(store, opened.run_id) == [1, 2, 3]
    held = store.client.get_run(opened.run_id)
    assert (held.info.status, held.data.tags["later"]) == ("FINISHED", "yes")


@contextmanager
def full_disk(file: Path):
    """No file of this process may grow beyond half of the present size of `file`, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_training_goes_on_while_the_disk_of_the_store_is_full(root, capsys):
    with train_run(root, {"a": 1}, {}) as opened:
        opened.log_epoch(ROWS[0])
        with full_disk(root / "mlflow.db"):
            opened.log_epoch(ROWS[1])
            opened.log_epoch(ROWS[2])
        time.sleep(0.5)
        opened.log_epoch(ROWS[3])
    assert "cannot be used: " in warnings(capsys)[0]
    assert epochs(open_store(root), opened.run_id) == [1, 2, 3, 4]


TRAIN = """
import csv, os, pathlib, signal, time
from pulmo.base.files import write_json
from pulmo.base.params_file import flatten
from pulmo.base.paths import MLFLOW_RUN, project_root
from pulmo.base.yaml import read_yaml
from pulmo.tracking.runs import train_run
rows = [{"epoch": epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)]
with train_run(project_root(), read_yaml(pathlib.Path("params.yaml")), {"data_sha256": "d"}) as run:
    run.log_epoch(rows[0])
    os.killpg(int(os.environ["SERVER"]), signal.SIGKILL)
    began = time.monotonic()
    for row in rows[1:]:
        run.log_epoch(row)
    run.set_tags({"env.device": "cpu"})
    write_json(MLFLOW_RUN, run.record)
    assert time.monotonic() - began < 60
with open("reports/history.csv", "w", newline="") as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(rows)
"""
EVALUATE = """
import csv, pathlib
from pulmo.base.files import read_json, write_json
from pulmo.base.paths import EVALUATION, METRICS, MLFLOW_RUN, project_root
from pulmo.base.yaml import read_yaml
from pulmo.tracking.runs import evaluate_run
with open("reports/history.csv") as file:
    rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
params = read_yaml(pathlib.Path("params.yaml"))
with evaluate_run(project_root(), read_json(MLFLOW_RUN), params, {"data_sha256": "d"}, rows) as run:
    numbers = {split: {"auroc": 0.5 + params["train"]["lr"]} for split in ("val", "test")}
    bounds = {split: {"metrics": {"auroc": {"value": 0.6, "low": 0.5, "high": 0.7}}} for split in numbers}
    write_json(EVALUATION, bounds)
    write_json(METRICS, numbers)
    run.log_metrics({"test.auroc": 0.6})
"""
PIPELINE = """
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [train]
    outs: [reports/history.csv, reports/mlflow_run.json]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, reports/history.csv, reports/mlflow_run.json]
    outs:
      - reports/evaluation.json
      - reports/metrics.json:
          cache: false
metrics:
  - reports/metrics.json
"""


@contextmanager
def server(folder: Path, port: int):
    """A real MLflow server on sqlite; its process group may be gone by the end."""
    command = ["-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, *command, *places], env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["workspace", "experiment"])
def test_a_server_that_is_killed_while_it_trains_stops_nothing_and_sync_completes_the_run(tmp_path, monkeypatch, how):
    folder = make_toy(tmp_path / "toy")
    (folder / "train.py").write_text(TRAIN)
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(PARAMS)
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "Two stages")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = ["dvc", "repro"] if how == "workspace" else ["dvc", "exp", "run", "--temp", "-n", "brave"]
    with server(tmp_path, port) as process:
        run(folder, *command, MLFLOW_TRACKING_URI=address, SERVER=str(process.pid))
        assert process.wait(30) == -signal.SIGKILL
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with server(tmp_path, port):
        store = open_store(folder)
        (broken,) = store.find_runs()
        assert (broken.info.status, epochs(store, broken.info.run_id)) == ("RUNNING", [1])
        lines = list(sync_store(Project(folder)))
        assert [line.split()[0] for line in lines if broken.info.run_name in line] == ["completed"]
        whole = store.client.get_run(broken.info.run_id)
        assert whole.info.status == "FINISHED"
        assert whole.data.tags["pulmo.evaluated"] == "true"
        assert whole.data.metrics["test.auroc"] == 0.6
        assert epochs(store, broken.info.run_id) == [1, 2, 3]
        assert "evaluation.json" in [item.path for item in store.client.list_artifacts(broken.info.run_id)]
        assert list(sync_store(Project(folder))) == []
