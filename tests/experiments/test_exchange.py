"""A sweep of several checkouts: what each needs, and how results and lost trials go from one to another."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import optuna
import pytest
import yaml_text
from optuna.trial import TrialState
from script_dvc import ScriptDvc
from small_package import make_package
from small_project import ROOT, commit, kill_all, run, write_params
from toy_project import make_toy
from typer.testing import CliRunner

from pulmo import cli
from pulmo.base.errors import UserError
from pulmo.experiments import study as studies
from pulmo.experiments import trials
from pulmo.experiments.exchange import open_exchange
from pulmo.experiments.project import Project
from pulmo.experiments.sweep import run_sweep
from pulmo.tracking.store import open_store
from pulmo.tracking.trial_runs import open_sweep, read_trial

CONFIG = "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {store}\n"
LOCK = """schema: '2.0'
stages:
  download:
    cmd: python stages/download.py
    outs:
    - {path: data/films.csv, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 1}
"""
SPACE = {"train.lr": {"float": [0.1, 0.9]}}


def write_sweep(folder: Path, **changes: object) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml_text.dump({"name": "toy", "trials": 2, "space": SPACE} | changes))
    return file


# A trial leaves a commit as real ones do, a push of an experiment pushes it; what else is asked of dvc is done.
TRY = """head=$(git rev-parse HEAD)
case "$2 $3" in
"exp run")
    {meanwhile}
    commit=$(git -c user.name=a -c user.email=b commit-tree HEAD^{{tree}} -m ${{8#*=}})
    git update-ref refs/exps/${{head::2}}/${{head:2}}/$6 $commit;;
"exp push") {push};;
esac"""
PUSH = "git push --quiet $4 $5"
BREAK = "echo 'ERROR: no route to host' >&2; exit 1"


@pytest.fixture
def pair(tmp_path: Path, empty_store, monkeypatch) -> tuple[Project, Project]:
    """Two clones of one repository with params, a sweep and a DVC remote, in which a script stands in for dvc."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(trials, "POLL", 0.05)
    hub, here, there = tmp_path / "hub.git", tmp_path / "here", tmp_path / "there"
    run(tmp_path, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub))
    run(tmp_path, "git", "clone", "--quiet", str(hub), str(here))
    for key, value in (("user.name", "tester"), ("user.email", "tester@example.org")):
        run(here, "git", "config", key, value)
    (here / ".dvc").mkdir()
    (here / ".dvc/config").write_text(CONFIG.format(store=tmp_path / "store"))
    (here / "params.yaml").write_text("train: {lr: 0.5, epochs: 2}\n")
    (here / ".gitignore").write_text("/bin/\n/mlflow.db\n/reports/\n")
    write_sweep(here)
    commit(here, "A toy")
    run(here, "git", "push", "--quiet", "origin", "HEAD:main")
    run(tmp_path, "git", "clone", "--quiet", str(hub), str(there))
    for folder in (here, there):
        empty_store(folder)
    return make_project(here), make_project(there)


def make_project(root: Path) -> Project:
    project = Project(root, ScriptDvc(root))
    script(project)
    return project


def script(project: Project, meanwhile: str = ":", push: str = PUSH) -> None:
    """Have trials of a checkout do something `meanwhile`, and pushes of experiments as `push` says."""
    project.dvc.write(TRY.format(meanwhile=meanwhile, push=push))


def share(project: Project, tmp_path: Path) -> Path:
    return run_sweep(project, project.root / "sweep.yaml", f"sqlite:///{tmp_path / 'study.db'}")


def load(tmp_path: Path) -> optuna.Study:
    return optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'study.db'}")


def test_a_checkout_without_a_git_remote_cannot_share(pair, tmp_path):
    run(pair[0].root, "git", "remote", "remove", "origin")
    with pytest.raises(UserError, match=r"has no Git remote.*\n\nhint: `git remote add origin URL`"):
        share(pair[0], tmp_path)
    assert not (tmp_path / "study.db").exists(), "a refused start makes no study"


def test_a_checkout_without_a_dvc_remote_cannot_share(pair, tmp_path):
    (pair[0].root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    with pytest.raises(UserError, match=r"has no default DVC remote.*\n\nhint: `dvc remote add --default"):
        share(pair[0], tmp_path)


def test_a_git_remote_that_does_not_answer_is_one_message(pair, tmp_path):
    (tmp_path / "hub.git").rename(tmp_path / "gone.git")
    with pytest.raises(UserError, match=r"the Git remote origin cannot be read \(.*\)\n\nhint: check `git remote -v`"):
        share(pair[0], tmp_path)


def test_a_dvc_remote_that_does_not_answer_is_one_message(pair, tmp_path):
    pair[0].dvc.write(BREAK)
    with pytest.raises(UserError, match=r"`dvc push` failed in .*: no route to host"):
        share(pair[0], tmp_path)


@pytest.mark.parametrize(("fetch", "reason"), [(":", ""), (BREAK, r" \(`dvc fetch` failed in .*no route to host\)")])
def test_outputs_that_nobody_has_are_named(pair, tmp_path, fetch, reason):
    root = pair[0].root
    (root / "dvc.lock").write_text(LOCK)
    commit(root, "Results that were never pushed")
    run(root, "git", "push", "--quiet", "origin", "HEAD:main")
    pair[0].dvc.write(fetch)
    lost = r"data/films\.csv of commit \w{7} is neither in the cache nor in the DVC remote"
    with pytest.raises(UserError, match=rf"{lost}{reason}\n\nhint: `dvc push` where it was made"):
        share(pair[0], tmp_path)


def test_what_others_do_not_have_is_not_shared(pair, tmp_path):
    (pair[0].root / "params.yaml").write_text("train: {lr: 0.7, epochs: 2}\n")
    with pytest.raises(UserError, match=r"params\.yaml differs from its commit.*\n\nhint: commit and push it"):
        share(pair[0], tmp_path)
    commit(pair[0].root, "Another lr")
    with pytest.raises(UserError, match=r"commit \w{7} is not on the Git remote origin\n\nhint: push it"):
        share(pair[0], tmp_path)


def test_a_worker_at_another_commit_is_refused_with_the_commit_of_the_sweep(pair, tmp_path, capsys):
    here, there = pair
    share(here, tmp_path)
    first = run(here.root, "git", "rev-parse", "--short=7", "HEAD").strip()
    (here.root / "params.yaml").write_text("train: {lr: 0.7, epochs: 2}\n")
    commit(here.root, "Another lr")
    run(here.root, "git", "push", "--quiet", "origin", "HEAD:main")
    with pytest.raises(UserError, match=rf"toy tries commit {first}.*\n\nhint: `git fetch && git checkout {first}`"):
        share(here, tmp_path)
    capsys.readouterr()
    share(there, tmp_path)
    assert capsys.readouterr().out.count(f"from {socket.gethostname()}:{here.root}") == 2, "results come to who is late"
    assert len(there.dvc.find_commits("toy-[01]")) == 2


def test_a_worker_with_other_fixed_params_is_refused(pair, tmp_path):
    here, there = pair
    share(here, tmp_path)
    write_sweep(there.root, fixed={"train.epochs": 3})
    run(there.root, "git", "update-index", "--assume-unchanged", "sweep.yaml")
    with pytest.raises(UserError, match=r"sweep toy has other fixed params.*\n\nhint: take the same file"):
        share(there, tmp_path)


def test_experiments_of_an_earlier_study_on_the_git_remote_are_not_overwritten(pair, tmp_path):
    run(pair[1].root, "git", "push", "--quiet", "origin", "HEAD:refs/exps/aa/bb/toy-0")
    with pytest.raises(UserError, match=r"another study toy are there\n\nhint: .*`dvc exp remove --git-remote origin`"):
        share(pair[0], tmp_path)


def test_a_checkout_that_changes_while_it_works_stops_and_leaves_its_params_to_others(pair, tmp_path):
    script(pair[0], meanwhile="echo '# changed' >> params.yaml")
    with pytest.raises(UserError, match=r"params\.yaml differs from its commit"):
        share(pair[0], tmp_path)
    tried = load(tmp_path).trials
    assert [trial.state for trial in tried] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert tried[2].system_attrs["fixed_params"] == tried[1].params


def test_results_that_cannot_be_pushed_are_named_at_the_end(pair, tmp_path, capsys):
    script(pair[0], push=BREAK)
    with pytest.raises(UserError, match=r"not pushed, and here alone: toy-0 toy-1\n\nhint: .*`dvc exp push origin toy"):
        share(pair[0], tmp_path)
    assert "toy-0: not pushed yet: `dvc exp push` failed in " in capsys.readouterr().out
    assert (pair[0].root / "reports/sweeps/toy/sweep.json").exists()


def test_a_result_that_could_not_be_pushed_is_pushed_with_the_next(pair, tmp_path):
    script(pair[0], push=f"test -e pushed || {{ touch pushed; {BREAK}; }}; {PUSH}")
    share(pair[0], tmp_path)
    sent = run(tmp_path / "hub.git", "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert [ref.rpartition("/")[2] for ref in sent] == ["toy-0", "toy-1"]


def test_each_of_two_jobs_that_end_at_once_pushes_its_result_once(pair, tmp_path):
    script(pair[0], push=f"echo $5 >> {tmp_path / 'pushed'}; sleep 0.5; {PUSH}")
    exchange = open_exchange(pair[0])
    refs = [f"refs/exps/{exchange.commit[:2]}/{exchange.commit[2:]}/toy-{number}" for number in (0, 1)]
    for ref in refs:
        run(pair[0].root, "git", "update-ref", ref, "HEAD")
    with ThreadPoolExecutor(2) as jobs:
        list(jobs.map(exchange.send, ("toy-0", "toy-1")))
    assert sorted((tmp_path / "pushed").read_text().split()) == refs
    assert exchange.unsent == []


def test_a_worker_that_was_thought_dead_goes_on_with_other_trials(pair, tmp_path, capsys):
    script(pair[0], meanwhile="touch begun-$6; while test $6 = toy-1 -a ! -e taken; do sleep 0.1; done")

    def give_away() -> None:
        """Take the second trial from its worker while it runs, as is done after a minute of silence."""
        while not (pair[0].root / "begun-toy-1").exists():
            time.sleep(0.05)
        study = load(tmp_path)
        study.tell(1, state=TrialState.FAIL)
        study.enqueue_trial(study.trials[1].params)
        (pair[0].root / "taken").touch()

    thread = Thread(target=give_away)
    thread.start()
    share(pair[0], tmp_path)
    thread.join()
    assert "a trial of this worker was given to another one" in capsys.readouterr().out
    tried = load(tmp_path).trials
    assert [trial.state for trial in tried] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert tried[2].params == tried[1].params
    sent = run(tmp_path / "hub.git", "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert [ref.rpartition("/")[2] for ref in sent] == ["toy-0", "toy-2"]


def test_a_database_that_goes_away_is_one_message(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "SILENCE", 1)
    script(pair[0], meanwhile=f"head -c 100000 /dev/zero > {tmp_path / 'study.db'}")
    with pytest.raises(UserError, match=r"(?s)the study's database no longer answers \(.*hint: the same command goes"):
        share(pair[0], tmp_path)


def test_a_result_waits_for_a_database_that_is_restarted(pair, tmp_path, monkeypatch):
    note, away = optuna.storages.RDBStorage.set_trial_user_attr, []

    def refuse(storage: optuna.storages.RDBStorage, trial: int, key: str, value: object) -> None:
        if key == "experiment" and len(away) < 2:
            away.append(value)
            raise optuna.exceptions.StorageInternalError("connection refused")
        note(storage, trial, key, value)

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_user_attr", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    share(pair[0], tmp_path)
    assert away == ["toy-0", "toy-0"]
    assert [trial.state for trial in load(tmp_path).trials] == [TrialState.COMPLETE] * 2


def test_the_database_of_mlflow_is_no_place_for_a_study(pair):
    address = f"sqlite:///{pair[0].root / 'mlflow.db'}"
    with pytest.raises(UserError, match=r"is the database of MLflow\n\nhint: give the study one of its own"):
        run_sweep(pair[0], pair[0].root / "sweep.yaml", address)
    open_store(pair[0].root)


STAGE = """
import json, os, pathlib, shutil, time
from pulmo.base import paths
from pulmo.base.files import write_json
from pulmo.base.process import run_stage
from pulmo.base.yaml import read_yaml
from pulmo.tracking.runs import train_run

def main():
    params = read_yaml(pathlib.Path("params.yaml"))
    lr = params["train"]["lr"]
    with train_run(paths.project_root(), params, {}) as run:
        run.log_epoch({"epoch": 1, "val_auroc": lr})
        if os.environ.get("DVC_EXP_NAME", "") == os.environ.get("HANGS"):
            time.sleep(600)
    shutil.copytree(os.environ["PACKAGE"], "models/package")
    estimate = {"value": 0.97, "low": 0.93, "high": 1.0, "films": 120, "patients": 60}
    ece = {"value": 0.02, "chance_high": 0.03}
    val = {"films": 120, "metrics": {"auroc": estimate}, "calibration": {"after": {"ece": ece}}, "lr": lr}
    write_json(paths.EVALUATION, {"val": val, "shortcuts": {"families": []}})
    write_json(paths.LEAKAGE, {"patients_across_splits": [], "exact_duplicates_across_splits": []})
    write_json(paths.METRICS, {"val": {"auroc": lr}, "test": {"auroc": 1 - lr}})

run_stage(main)
"""
PIPELINE = """
stages:
  train:
    cmd: python stage.py
    deps: [stage.py]
    params: [train]
    outs:
      - models/package
      - reports/evaluation.json
      - reports/leakage.json
      - reports/metrics.json:
          cache: false
metrics:
  - reports/metrics.json
"""
QUICK = """
from pulmo.experiments import study
study.HEARTBEAT, study.SILENCE = 1, 10
from pulmo.cli import main
main()
"""


def start(folder: Path, database: str, **variables: str) -> "subprocess.Popen[str]":
    """`pulmo sweep sweep.yaml --storage` in its own process, in which trials beat each second."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-c", QUICK, "sweep", "sweep.yaml", "--storage", database],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), **variables},
        stdout=(folder.parent / f"{folder.name}.log").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def toys(tmp_path: Path, empty_store, monkeypatch) -> tuple[Path, Path]:
    """Two clones of a repository with a stage, that share MLflow's store; both know of one package, for speed."""
    for key in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "mlflow").mkdir()
    empty_store(tmp_path / "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow/mlflow.db'}")
    monkeypatch.setenv("PACKAGE", str(make_package(tmp_path / "package", head=1, size=48, fit="squash")))
    hub, there = tmp_path / "hub.git", tmp_path / "there"
    write_params(tmp_path)
    here = make_toy(tmp_path / "here", STAGE, PIPELINE, (tmp_path / "params.yaml").read_text())
    run(tmp_path, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub))
    run(here, "git", "remote", "add", "origin", str(hub))
    (here / ".dvc/config").write_text(CONFIG.format(store=tmp_path / "store"))
    write_sweep(here, trials=3)
    commit(here, "A remote and a sweep")
    run(here, "git", "push", "--quiet", "origin", "main")
    run(here, "dvc", "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", str(hub), str(there))
    for key, value in (("user.name", "colleague"), ("user.email", "colleague@example.org")):
        run(there, "git", "config", key, value)
    return here, there


def wait_until(true, worker: "subprocess.Popen[str]", folder: Path, limit: float = 120) -> None:
    end = time.monotonic() + limit
    while not true():
        said = (folder.parent / f"{folder.name}.log").read_text()
        assert worker.poll() is None, said
        assert time.monotonic() < end, said
        time.sleep(0.5)


@pytest.mark.slow
def test_clones_share_a_sweep_and_one_that_dies_gives_its_trial_back(toys, database, monkeypatch):
    here, there = toys

    def states() -> list[str]:
        return [trial.state.name for trial in optuna.load_study(study_name="toy", storage=database).trials]

    dying = start(there, database, HANGS="toy-1")
    wait_until(lambda: there.joinpath("reports/sweeps/toy/toy-1.log").exists(), dying, there)
    asking = start(here, database)
    log = here.parent / "here.log"
    wait_until(lambda: "waiting for" in log.read_text(), asking, here)
    assert states() == ["COMPLETE", "RUNNING", "COMPLETE"]
    store = open_store(here)
    parent = open_sweep(store, "toy")
    assert read_trial(store, parent, "toy-1").status == "RUNNING"
    kill_all(dying)
    dying.wait()

    assert asking.wait(120) == 0, log.read_text()
    said = log.read_text()
    study = optuna.load_study(study_name="toy", storage=database)
    assert states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[3].params == study.trials[1].params, "what the dead worker was trying is tried again"
    names = {"toy-0", "toy-2", "toy-3"}
    assert len({trial.params["train.lr"] for trial in study.trials}) == 3
    assert f"toy-0: validation AUROC {study.trials[0].value:.4f}" in said
    assert f"from {socket.gethostname()}:{there}" in said
    assert {name: read_trial(store, parent, name).status for name in names} == dict.fromkeys(names, "FINISHED")
    assert read_trial(store, parent, "toy-1").status == "KILLED"

    monkeypatch.chdir(here)
    table = {line.split()[0]: line.split() for line in call("experiments").splitlines() if line.startswith("toy-")}
    assert set(table) == names
    assert all(f"{study.trials[int(name[-1])].value:.3f}" in row for name, row in table.items())
    assert not list((here / ".dvc/cache").rglob(outputs_of(there, "toy-0"))), "outputs come when they are asked for"
    assert "toy-0 is champion, version 1" in call("promote", "toy-0")


def outputs_of(folder: Path, experiment: str) -> str:
    """Name in DVC's cache of the evaluation of an experiment."""
    lock = yaml_text.load(run(folder, "git", "show", f"{list_refs(folder)[experiment]}:dvc.lock"))
    (found,) = [out["md5"] for out in lock["stages"]["train"]["outs"] if out["path"] == "reports/evaluation.json"]
    return found[2:]


def list_refs(folder: Path) -> dict[str, str]:
    refs = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return {ref.rpartition("/")[2]: ref for ref in refs}


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
