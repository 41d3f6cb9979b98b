"""A working day in a scratch checkout, command by command; then DVC and MLflow are asked what happened, row by row."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml_text
from small_project import PULMO, TINY, assert_cache_is_whole, commit, make_checkout, run

from pulmo.base.params_file import flatten
from pulmo.tracking.store import EXPERIMENT

pytestmark = pytest.mark.slow
SWEEP = {
    "name": "small",
    "trials": 2,
    "seed": 3,
    "fixed": {"evaluate.seed": 5},
    "space": {"train.lr": {"log": [0.0005, 0.005]}},
}


class Day:
    """The checkout, the clone of a colleague, and what the commands said."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here, self.there = here, there
        self.said: dict[str, str] = {}


def fail(folder: Path, *command: str) -> str:
    """What a pulmo command that must not succeed says."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([*PULMO, *command], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    tmp = tmp_path_factory.mktemp("day")
    hub, cache = tmp / "hub.git", tmp / "remote"
    day = Day(make_checkout(tmp / "here", TINY), tmp / "there")
    here = day.here
    run(tmp, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub))
    run(here, "git", "remote", "add", "origin", str(hub))
    run(here, "dvc", "remote", "add", "--default", "store", str(cache))
    run(here, "dvc", "repro")
    commit(here, "The first results")

    run(here, "dvc", "exp", "run", "--name", "at-once", "-S", "train.lr=0.002")
    run(here, "dvc", "exp", "run", "--queue", "--name", "restored", "-S", "train.lr=0.002")  # no stage of it will run
    run(here, "dvc", "exp", "run", "--temp", "--name", "cached", "-S", "evaluate.operating_point=youden")
    run(here, "git", "checkout", "--quiet", "--", ".")
    run(here, "dvc", "checkout", "--quiet")
    run(here, "dvc", "exp", "run", "--queue", "-S", "train.lr=0.003,0.004")
    run(here, "dvc", "exp", "run", "--queue", "--name", "impossible", "-S", "train.loss=bce")
    day.said["queue"] = fail(here, "queue", "run", "--jobs", "2")
    (here / "sweeps/small.yaml").write_text(yaml_text.dump(SWEEP), encoding="utf-8")
    day.said["sweep"] = run(here, *PULMO, "sweep", "sweeps/small.yaml")
    run(here, "git", "checkout", "--quiet", "--", "sweeps")

    client = open_client(here)
    (lost,) = find_runs(client, "attributes.run_name = 'cached'")
    client.delete_run(lost.info.run_id)
    client.create_run(lost.info.experiment_id, run_name="orphan", tags=dead_process_tags())
    day.said["sync"] = run(here, *PULMO, "sync")
    day.said["sync again"] = run(here, *PULMO, "sync")
    day.said["refused"] = fail(here, "promote", "at-once")
    day.said["refused restored"] = fail(here, "promote", "restored")
    day.said["refused commit"] = fail(here, "promote", "main")
    day.said["promote"] = run(here, *PULMO, "promote", "at-once", "--force", "--reason", "the first that there is")
    day.said["history"] = run(here, *PULMO, "history")
    day.said["experiments"] = run(here, *PULMO, "experiments", COLUMNS="100")
    day.said["compare"] = run(here, *PULMO, "compare", "at-once", "cached")
    day.said["params diff"] = run(here, "dvc", "params", "diff", "HEAD", "at-once")
    day.said["doctor"] = run(here, *PULMO, "doctor")

    run(here, "git", "push", "--quiet", "origin", "main")
    run(here, "dvc", "push", "--quiet")
    run(here, "dvc", "exp", "push", "--quiet", "origin", "at-once")
    run(tmp, "git", "clone", "--quiet", str(hub), str(day.there))
    run(day.there, "dvc", "pull", "--quiet")
    run(day.there, "dvc", "exp", "pull", "--quiet", "origin", "at-once")
    day.said["there"] = run(day.there, "dvc", "repro")
    day.said["sync there"] = run(day.there, *PULMO, "sync")
    return day


def open_client(folder: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def find_runs(client: Any, condition: str = "") -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id], condition))


def dead_process_tags() -> dict[str, str]:
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    return {"pulmo.host": socket.gethostname(), "pulmo.pid": str(dead.pid), "pulmo.pid_started": "1"}


def told_by_dvc(folder: Path) -> dict[str, tuple[str, dict[str, Any], dict[str, float]]]:
    """State, params and metrics of each experiment, as `dvc exp show --json` has them."""
    found = {}
    for baseline in json.loads(run(folder, "dvc", "exp", "show", "--json")):
        for entry in baseline["experiments"] or []:
            data = entry["revs"][0]["data"]
            state = (entry["executor"] or {}).get("state") or "success"
            params, metrics = (data[kind][file]["data"] for kind, file in FILES)
            found[entry["name"]] = (state, flatten(params), flatten(metrics))
    return found


FILES = (("params", "params.yaml"), ("metrics", "reports/metrics.json"))


def test_both_tell_of_the_same_experiments_with_the_same_params_and_metrics(day):
    told, client = told_by_dvc(day.here), open_client(day.here)
    runs = [found for found in find_runs(client) if found.data.tags.get("dvc.experiment")]
    by_name = {found.info.run_name: found for found in runs}
    assert len(runs) == len(by_name) == 8, "one run each"
    assert set(by_name) == set(told)
    assert {"at-once", "restored", "cached", "impossible", "small-0", "small-1"} < set(told)
    for name, (state, params, metrics) in told.items():
        found = by_name[name]
        assert found.info.status == {"success": "FINISHED", "failed": "FAILED"}[state], name
        assert found.data.tags["dvc.experiment"] == name
        logged = {key: yaml_text.load(value) for key, value in found.data.params.items()}
        assert logged == {key: yaml_text.load(str(value)) for key, value in params.items()}, name
        if state == "success":
            assert {key: found.data.metrics[key] for key in metrics} == metrics, name
            assert len(client.get_metric_history(found.info.run_id, "epoch/val_auroc")) == 2, name
    assert [name for name, (state, *_) in told.items() if state == "failed"] == ["impossible"]


def test_a_failed_queue_fails_and_says_why(day):
    assert "1 of 4 experiments failed: impossible: params.yaml: train.loss: bce" in day.said["queue"]


def test_an_experiment_that_dvc_took_from_its_cache_has_a_run_and_is_promoted_under_its_own_name(day):
    assert "restored: success" in day.said["queue"]
    assert "added              restored" in day.said["queue"]
    assert "restored was not promoted: gate failed" in day.said["refused restored"]


def test_sync_restores_what_was_lost_and_ends_what_was_killed(day):
    assert "added" in day.said["sync"]
    assert "cached" in day.said["sync"]
    assert "closed as KILLED   orphan" in day.said["sync"]
    assert day.said["sync again"] == "every experiment has its run, and no run is left open\n"
    (orphan,) = find_runs(open_client(day.here), "attributes.run_name = 'orphan'")
    assert orphan.info.status == "KILLED"


def test_trials_stand_below_the_run_of_their_sweep(day):
    client = open_client(day.here)
    (parent,) = find_runs(client, "attributes.run_name = 'small'")
    below = find_runs(client, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {found.info.run_name for found in below} == {"small-0", "small-1"}
    best = max(below, key=lambda found: found.data.metrics["val.auroc"])
    assert f"dvc exp apply {best.info.run_name}" in day.said["sweep"]


def test_a_champion_is_made_by_gates_or_with_a_reason(day):
    assert "at-once was not promoted: gate failed" in day.said["refused"]
    assert re.search(r"repro-\w{7} was not promoted: gate failed", day.said["refused commit"])
    assert "at-once is champion, version 1" in day.said["promote"]
    assert "forced: the first that there is" in day.said["history"]
    champion = open_client(day.here).get_model_version_by_alias("pulmo", "champion")
    assert champion.tags["experiment"] == "at-once"
    film = next((day.here / "data/raw").rglob("*.png"), None) or next((day.here / "data/raw").rglob("*.j*"))
    assert "prob_pneumonia" in run(day.here, *PULMO, "predict", str(film))


def test_the_table_of_experiments_fits_100_columns(day):
    lines = day.said["experiments"].splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert [line.split()[0] for line in lines if line.startswith(("at-once", "cached", "impossible"))]


def test_two_experiments_can_be_compared(day):
    assert "test films of" in day.said["compare"]
    assert "train.lr" in day.said["params diff"]
    assert "http" not in (day.here / "reports/comparison.html").read_text(encoding="utf-8")


def test_the_doctor_finds_no_error(day):
    assert not [line for line in day.said["doctor"].splitlines() if line.startswith("error")]


def test_a_colleague_has_it_all_and_runs_nothing(day):
    assert "Data and pipelines are up to date" in day.said["there"]
    assert "added              at-once" in day.said["sync there"]
    (here,), (there,) = (
        find_runs(open_client(folder), "attributes.run_name = 'at-once'") for folder in (day.here, day.there)
    )
    assert {key: there.data.metrics[key] for key in here.data.metrics if key.startswith(("val.", "test."))} == {
        key: value for key, value in here.data.metrics.items() if key.startswith(("val.", "test."))
    }


def test_outputs_share_their_bytes_with_the_cache_and_none_was_written_over(day):
    outputs = [file for name in ("data", "models") for file in (day.here / name).rglob("*") if file.is_file()]
    assert {"images.npy", "weights.safetensors"} <= {file.name for file in outputs}
    assert all(file.stat().st_nlink > 1 or file.is_symlink() for file in outputs)
    assert_cache_is_whole(day.here)
