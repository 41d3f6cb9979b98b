import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread, Timer

import optuna
import psutil
import pytest
import yaml_text
from optuna.trial import TrialState
from script_dvc import ScriptDvc
from small_project import PULMO, ROOT, kill_all, run
from toy_project import make_toy

from pulmo.base.errors import UserError
from pulmo.base.files import read_json
from pulmo.base.params_file import load_params
from pulmo.experiments import trials
from pulmo.experiments.project import Project
from pulmo.experiments.study import open_study
from pulmo.experiments.sweep import run_sweep
from pulmo.experiments.sweep_file import read_sweep
from pulmo.tracking.contents import Run
from pulmo.tracking.runs import PARENT_TAG, PID
from pulmo.tracking.store import DESCRIPTION, open_store
from pulmo.tracking.trial_runs import open_sweep, read_trial

SHIPPED = ROOT / "sweeps/small.yaml"
TOY = """
import json, pathlib, time
from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.process import run_stage
from pulmo.base.yaml import read_yaml
from pulmo.tracking.runs import train_run

def main():
    params = read_yaml(pathlib.Path("params.yaml"))
    lr, epochs = params["train"]["lr"], params["train"]["epochs"]
    if lr < 0:
        raise UserError(f"train.lr: input should be greater than 0, got {lr}")
    with train_run(paths.project_root(), params, {}) as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch({"epoch": epoch, "val_auroc": lr / 2})
            time.sleep(params["train"]["pace"])
    pathlib.Path("reports").mkdir(exist_ok=True)
    pathlib.Path("reports/metrics.json").write_text(json.dumps({"val": {"auroc": lr}, "test": {"auroc": 1 - lr}}))

run_stage(main)
"""
PIPELINE = """
stages:
  train:
    cmd: python stage.py
    deps: [stage.py]
    params: [train]
    outs:
      - reports/metrics.json:
          cache: false
metrics:
  - reports/metrics.json
"""


def sweep_file(folder: Path, **changes: object) -> Path:
    content = {"name": "toy", "trials": 2, "space": {"train.lr": {"float": [0.1, 0.9]}}} | changes
    file = folder / "sweep.yaml"
    file.write_text(yaml_text.dump({key: value for key, value in content.items() if value is not None}))
    return file


class FakeProject(Project):
    """A repository with a store, in which a trial is run by a shell script."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, ScriptDvc(root))
        self.stopping = Event()

    def run_trial(self, is_poor: Callable[[int, float], bool] = lambda epoch, auroc: False) -> float | None:
        log = self.root / "logs/toy-0.log"
        settings = {"train.lr": 1e-5, "split.drop_duplicates": True}
        sweep = Run(self.store.client, "parent", "toy")
        return trials.run_trial(self, "toy-0", settings, sweep, log, is_poor, self.stopping)

    def begin_run(self, *val_auroc: float) -> str:
        """Id of the run of the trial, as a stage that no process is has it under way."""
        run_id = self.store.create_run("toy-0", {PARENT_TAG: "parent", PID: 2**22 + 1})
        for epoch, value in enumerate(val_auroc, start=1):
            self.store.client.log_metric(run_id, "epoch/val_auroc", value, step=epoch)
        return run_id


@pytest.fixture
def fake(tmp_path, empty_store, monkeypatch) -> FakeProject:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty_store(tmp_path)
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "0.75", "--allow-empty")
    monkeypatch.setattr(trials, "POLL", 0.05)
    monkeypatch.setattr(trials, "LOST", 3.0)
    return FakeProject(tmp_path)


SUCCEED = "git update-ref refs/exps/aa/bb/toy-0 HEAD"
TRY = """name=$6 lr=${8#*=}
git -c user.name=a -c user.email=b commit-tree HEAD^{tree} -m $lr | xargs git update-ref refs/exps/aa/bb/$name"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text("train: {lr: 0.5, epochs: 2, pace: 0.0}\n")
    return file


def test_the_shipped_sweep_gives_valid_params_at_both_ends_of_its_space(tmp_path):
    sweep = read_sweep(SHIPPED, ROOT / "params.yaml")
    for end in (0, -1):
        params = yaml_text.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        ends = {key: next(iter(values.values()))[end] for key, values in sweep.space.items()}
        for key, value in {**sweep.fixed, **ends}.items():
            *inner, last = key.split(".")
            place = params
            for step in inner:
                place = place[step]
            assert last in place
            place[last] = value
        (tmp_path / "params.yaml").write_text(yaml_text.dump(params))
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"train.rate": {"float": [0, 1]}}}, r"sweep\.yaml: train\.rate is no key of params\.yaml"),
        ({"fixed": {"lr": 1}}, "lr is no key"),
        (
            {"space": {"train.lr": {"float": [1, 0]}}},
            r"sweep\.yaml: .*lr: got .*\n\nhint: float needs .*lower one first",
        ),
        ({"space": {"train.lr": {"float": [0]}}}, r"train\.lr: got .*\n\nhint: float needs two"),
        (
            {"space": {"train.lr": {"float": [0, float("inf")]}}},
            r"train\.lr: got .*\n\nhint: float needs two",
        ),
        (
            {"space": {"train.lr": {"float": [False, True]}}},
            r"train\.lr: got .*\n\nhint: float needs two",
        ),
        ({"space": {"train.lr": {"log": [0, 1]}}}, r"train\.lr: got .*\n\nhint: log needs two numbers above 0"),
        (
            {"space": {"train.epochs": {"int": [1, 2.5]}}},
            r"train\.epochs: got .*\n\nhint: int needs two whole numbers",
        ),
        (
            {"space": {"train.lr": {"choice": [1, 1]}}},
            r"train\.lr: got .*\n\nhint: choice needs two different values or more",
        ),
        ({"fixed": {"train.lr": 1}}, r"space\.train\.lr is in fixed too"),
        ({"space": {}}, "space: .*at least 1 item"),
        ({"space": {"train.lr": {"uniform": [0, 1]}}}, r"space\.train\.lr is of no known kind\n\nhint: write one of"),
        ({"space": {"train.lr": {"choice": []}}}, r"train\.lr: got .*\n\nhint: choice needs"),
        ({"space": {"train.lr": {"log": [0.1, "fast"]}}}, r"train\.lr: got .*\n\nhint: log needs"),
        ({"space": None}, "key space is missing"),
        ({"trials": 0}, "trials and hours are both 0"),
        ({"jobs": 0}, "jobs: .*greater than 0"),
        ({"trial": 3}, "unknown key trial"),
        ({"name": "a b"}, "name: "),
    ],
)
def test_a_wrong_sweep_is_one_line(tmp_path, params, changes, message):
    with pytest.raises(UserError, match=message) as error:
        read_sweep(sweep_file(tmp_path, **changes), params)
    assert "\n" not in error.value.message
    assert error.value.hint


def propose(tmp_path: Path, params: Path, database: str, worker: str = "", seed: int = 1) -> float:
    study = open_study(read_sweep(sweep_file(tmp_path, seed=seed), params), f"sqlite:///{tmp_path / database}", worker)
    return study.ask().suggest_float("train.lr", 0, 1)


def test_proposals_follow_the_seed_and_neither_a_restart_nor_a_worker_repeats_them(tmp_path, params):
    first = propose(tmp_path, params, "a.db")
    assert propose(tmp_path, params, "b.db") == first
    others = {propose(tmp_path, params, "a.db"), propose(tmp_path, params, "c.db", "host:there")}
    others.add(propose(tmp_path, params, "d.db", seed=2))
    assert len(others | {first}) == 4


def test_a_database_that_cannot_be_used_is_one_line(params, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"(?s)the study's database cannot be used .*check --storage") as error:
        open_study(read_sweep(sweep_file(tmp_path), params), f"sqlite:///{tmp_path}/no/such/folder.db")
    assert "\n" not in error.value.message


def test_a_database_whose_driver_says_nothing_is_one_line_too(params, tmp_path, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", fail)
    with pytest.raises(UserError, match=r"the study's database cannot be used \(TimeoutError\)"):
        open_study(read_sweep(sweep_file(tmp_path), params), f"sqlite:///{tmp_path / 'a.db'}")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:pa/secret@127.0.0.1:1/b",
        "postgresql://user:p@secret@127.0.0.1:1/b",
        "nosuchdriver://secret@127.0.0.1:1/b",
        "postgresql://127.0.0.1:1/b?token=secret",
        "postgresql//user:secret@127.0.0.1:1/b",
    ],
)
def test_a_database_that_cannot_be_used_keeps_its_password(address, params, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"cannot be used|is no address") as error:
        open_study(read_sweep(sweep_file(tmp_path), params), address)
    assert "secret" not in str(error.value)


def test_a_trial_whose_process_is_gone_is_queued_again(tmp_path, params):
    sweep, database = read_sweep(sweep_file(tmp_path), params), f"sqlite:///{tmp_path / 'a.db'}"
    study, own = open_study(sweep, database), psutil.Process()
    alive, dead = study.ask(), study.ask()
    value = dead.suggest_float("train.lr", 0.1, 0.9)
    alive.set_user_attr("process", (socket.gethostname(), own.pid, own.create_time()))
    dead.set_user_attr("process", (socket.gethostname(), own.pid, own.create_time() - 3600))
    states = [trial.state for trial in open_study(sweep, database).trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    assert open_study(sweep, database).ask().suggest_float("train.lr", 0.1, 0.9) == value


def test_two_jobs_never_take_the_same_waiting_trial(tmp_path, params, monkeypatch):
    study = open_study(read_sweep(sweep_file(tmp_path), params), f"sqlite:///{tmp_path / 'a.db'}")
    for lr in (0.2, 0.8):
        study.enqueue_trial({"train.lr": lr})
    check = optuna.storages.RDBStorage.check_trial_is_updatable

    def linger(*arguments: object) -> None:
        time.sleep(0.3)  # between reading that the trial waits and taking it
        check(*arguments)

    monkeypatch.setattr(optuna.storages.RDBStorage, "check_trial_is_updatable", linger)
    with ThreadPoolExecutor(2) as jobs:
        taken = list(jobs.map(lambda _: study.ask().number, range(2)))
    assert sorted(taken) == [0, 1]


def test_a_job_that_breaks_off_unheard_does_not_look_like_a_finished_sweep(fake, tmp_path, params):
    fake.dvc.write(TRY)
    obstacle = tmp_path / "reports/sweeps/toy/toy-1.log"
    obstacle.mkdir(parents=True)
    file = sweep_file(tmp_path, jobs=2)
    with pytest.raises(UserError, match=r"(?s)sweep toy ended after 1 of 2 trials\n\nhint: the same command goes on"):
        run_sweep(fake, file)
    assert open_store(tmp_path).find_runs()[0].info.status == "FAILED"
    obstacle.rmdir()
    run_sweep(fake, file)
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.mark.parametrize(("error", "status"), [(OSError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_sweep_that_an_error_ends_is_not_left_running(fake, tmp_path, params, error, status):
    fake.dvc.write(TRY)
    fake.dvc.broken = error("no space left on device")
    with pytest.raises(error):
        run_sweep(fake, sweep_file(tmp_path))
    assert open_store(tmp_path).find_runs()[0].info.status == status


def test_a_study_whose_space_has_another_kind_since_is_refused(fake, tmp_path, params):
    fake.dvc.write(TRY)
    run_sweep(fake, sweep_file(tmp_path, space={"train.lr": {"choice": [0.1, 0.2]}}))
    for changed in ({"float": [0.1, 0.9]}, {"choice": [0.1, 0.3]}):
        file = sweep_file(tmp_path, trials=4, jobs=2, space={"train.lr": changed})
        with pytest.raises(UserError, match=r"(?s)sweep\.yaml: space\.train\.lr was .*give the sweep another name"):
            run_sweep(fake, file)


def test_a_sweep_whose_every_trial_fails_keeps_its_budget(fake, tmp_path, params, capsys):
    fake.dvc.write("echo 'error: no space left on device'; exit 1")
    for failed in (3, 1):
        with pytest.raises(UserError, match=r"(?s)no trial of sweep toy came to an end.*once that is cured"):
            run_sweep(fake, sweep_file(tmp_path, trials=6))
        assert capsys.readouterr().out.count("failed: no space left") == failed
    fake.dvc.write(TRY)
    run_sweep(fake, sweep_file(tmp_path, trials=6))
    assert capsys.readouterr().out.count("validation AUROC") == 2


def test_a_new_study_with_the_name_of_earlier_experiments_is_refused(fake, tmp_path, params):
    run(tmp_path, "git", "update-ref", "refs/exps/old/er/toy-0", fake.dvc.commit)
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(UserError, match=r"sweep\.yaml: name: experiments of another study toy are there"):
        run_sweep(Project(tmp_path), sweep_file(tmp_path))
    assert not (tmp_path / "mlflow.db").exists()


def test_a_sweep_has_one_run_in_a_store(tmp_path, empty_store, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty_store(tmp_path)
    first = open_sweep(open_store(tmp_path), "toy")
    first.client.set_terminated(first.run_id, "KILLED")
    again = open_sweep(open_store(tmp_path), "toy")
    assert again.run_id == first.run_id
    assert again.client.get_run(again.run_id).info.status == "RUNNING"
    assert open_sweep(open_store(tmp_path), "other").run_id != first.run_id
    assert read_trial(open_store(tmp_path), first, "toy-0") is None


@pytest.mark.parametrize(("jobs", "told"), [(1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGHUP)])
def test_ctrl_c_stops_a_sweep_so_that_it_goes_on(fake, tmp_path, params, capsys, request, jobs, told):
    before = signal.signal(told, signal.SIG_DFL)  # under nohup, or in the background, tests begin with it ignored
    request.addfinalizer(lambda: signal.signal(told, before))
    fake.dvc.write("touch begun-$6; sleep 100")

    def interrupt() -> None:
        while len(list(tmp_path.glob("begun-*"))) < jobs:
            time.sleep(0.05)
        os.kill(os.getpid(), told)

    Thread(target=interrupt, daemon=True).start()
    file = sweep_file(tmp_path, jobs=jobs)
    with pytest.raises(UserError, match=r"(?s)sweep toy was stopped\n\nhint: the same command goes on with it"):
        run_sweep(fake, file)
    assert open_store(tmp_path).find_runs()[0].info.status == "KILLED"
    fake.dvc.write(TRY)
    run_sweep(fake, file)
    ended = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'optuna.db'}").trials
    stopped, ran = (
        [trial for trial in ended if trial.state == state] for state in (TrialState.FAIL, TrialState.COMPLETE)
    )
    assert (len(stopped), len(ran)) == (jobs, 2)
    assert {trial.value for trial in ran} >= {trial.params["train.lr"] for trial in stopped}
    run_sweep(fake, file)
    assert capsys.readouterr().out.count("validation AUROC") == 2, "a budget that is used up runs nothing"


def test_a_trial_is_an_experiment_below_the_sweep(fake, tmp_path):
    fake.dvc.write(f'echo "$@" $PULMO_PARENT_RUN > said; {SUCCEED}')
    assert fake.run_trial() == 0.75
    settings = "-S train.lr=1e-05 -S split.drop_duplicates=true"
    assert (tmp_path / "said").read_text().strip() == f"--wait-for-lock exp run --temp -n toy-0 {settings} parent"


def test_a_trial_never_takes_the_result_of_an_earlier_experiment_of_its_name(fake, tmp_path):
    run(tmp_path, "git", "update-ref", "refs/exps/old/er/toy-0", fake.dvc.commit)
    fake.dvc.write("echo 'ERROR: Experiment conflicts with existing experiment'; exit 255")
    with pytest.raises(trials.TrialError, match="conflicts with existing experiment"):
        fake.run_trial()


def test_a_failed_trial_says_why_at_once(fake, monkeypatch):
    monkeypatch.setattr(trials, "LOST", 20.0)
    began = time.monotonic()
    fake.dvc.write("printf 'error: train.lr is too high\\n\\nhint: lower it\\n'; echo later; exit 255")
    with pytest.raises(trials.TrialError, match=r"^train\.lr is too high \(hint: lower it\); see .*toy-0\.log"):
        fake.run_trial()
    assert time.monotonic() - began < 10


def test_an_experiment_that_another_dvc_process_took_is_waited_for(fake):
    fake.dvc.write(f"(sleep 1; {SUCCEED}) >/dev/null 2>&1 & exit 0")
    assert fake.run_trial() == 0.75


def test_a_lost_experiment_is_not_waited_for_without_end(fake):
    fake.dvc.write("exit 0")
    with pytest.raises(trials.TrialError, match="failed without a word"):
        fake.run_trial()


def test_a_poor_trial_is_stopped_and_its_state_forgotten(fake, tmp_path):
    state = tmp_path / ".resume/key"
    state.mkdir(parents=True)
    run_id = fake.begin_run(0.5, 0.4)
    (state / "mlflow_run.json").write_text(json.dumps({"run_id": run_id}))
    fake.dvc.write("sleep 100; echo cleaned up after $?; exit 1")
    assert fake.run_trial(lambda epoch, auroc: epoch == 2 and auroc == 0.4) is None
    assert "cleaned up after 143\n" in (tmp_path / "logs/toy-0.log").read_text(), "dvc itself is left to clean up"
    found = fake.store.client.get_run(run_id)
    assert (found.info.status, found.data.tags["pulmo.pruned"]) == ("KILLED", "true")
    assert not state.exists()


def test_a_training_that_ends_while_the_state_of_another_is_looked_for_does_no_harm(fake, tmp_path, monkeypatch):
    state = tmp_path / ".resume/key/mlflow_run.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"run_id": "another"}))

    def end_and_read(file: Path) -> object:
        shutil.rmtree(file.parent)
        return read_json(file)

    monkeypatch.setattr(trials, "read_json", end_and_read)
    fake.begin_run(0.4)
    fake.dvc.write("sleep 100")
    assert fake.run_trial(lambda epoch, auroc: True) is None


def test_a_stopped_sweep_tells_the_stage_of_a_trial_once_and_lets_it_end(fake, tmp_path):
    stage = "trap 'echo told' TERM; while ((SECONDS < 3)); do sleep 0.1; done"
    fake.dvc.write(f'bash -c "{stage}" 2>/dev/null; echo cleaned up')
    Timer(1.0, fake.stopping.set).start()
    with pytest.raises(trials.TrialError, match="the sweep was stopped"):
        fake.run_trial()
    assert (tmp_path / "logs/toy-0.log").read_text() == "told\ncleaned up\n"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository whose one stage takes a moment and has train.lr for its AUROC on validation."""
    return make_toy(tmp_path / "toy", TOY, PIPELINE, "train: {lr: 0.5, epochs: 3, pace: 0.0}\n")


def start(folder: Path) -> "subprocess.Popen[str]":
    """`pulmo sweep sweep.yaml` in its own process."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_TRACKING"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [*PULMO, "sweep", "sweep.yaml"],
        cwd=folder,
        env={**inherited, "PATH": path, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def runs_of(folder: Path) -> dict[str, object]:
    return {found.info.run_name: found for found in open_store(folder).find_runs()}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_tells_its_best_trial(toy, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    sweep_file(toy, trials=3, fixed={"train.pace": 60.0, "train.epochs": 1})
    killed = start(toy)
    end = time.monotonic() + 120
    while "toy-0" not in runs_of(toy):
        assert time.monotonic() < end
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(1)
    kill_all(killed)
    killed.communicate()

    sweep_file(toy, trials=3, fixed={"train.pace": 0.0})
    done = start(toy)
    said = done.communicate()[0]
    assert done.returncode == 0, said
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{toy / 'optuna.db'}")
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL] + [TrialState.COMPLETE] * 3
    assert study.trials[1].params == study.trials[0].params, "what was being tried is tried again"
    found = runs_of(toy)
    experiments = set(run(toy, "dvc", "exp", "list", "--name-only").split())
    assert experiments == {"toy-1", "toy-2", "toy-3"}
    parent = found["toy"]
    for trial in study.trials[1:]:
        child = found[f"toy-{trial.number}"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["train.lr"] == str(trial.value)
        assert f"toy-{trial.number}: validation AUROC {trial.value:.4f}" in said
    best = study.best_trial
    assert said.rstrip().endswith(f"dvc exp apply toy-{best.number}")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["val.auroc"] == best.value
    assert f"Best: toy-{best.number}, validation AUROC {best.value:.4f}. The 4 trials" in parent.data.tags[DESCRIPTION]
    held = {item.path for item in open_sweep(open_store(toy), "toy").client.list_artifacts(parent.info.run_id)}
    assert held == {"history.png", "sweep.json"}
    report = read_json(toy / "reports/sweeps/toy/sweep.json")
    assert report["params"] == best.params
    assert report["importances"] == {"train.lr": 1.0}
    run(toy, "dvc", "exp", "apply", f"toy-{best.number}")
    assert read_json(toy / "reports/metrics.json")["val"]["auroc"] == best.value


@pytest.mark.slow
def test_poor_trials_are_pruned_and_a_failing_one_does_not_end_the_sweep(toy, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    here = str(Path(sys.executable).parent)  # an environment that is not activated: neither dvc nor python in the path
    elsewhere = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != here]
    monkeypatch.setenv("PATH", os.pathsep.join(elsewhere))
    file = sweep_file(toy, trials=3, prune={"after_trials": 1, "after_epochs": 0}, fixed={"train.pace": 0.0})
    study = open_study(read_sweep(file, toy / "params.yaml"), f"sqlite:///{toy / 'optuna.db'}")
    for lr in (0.8, 0.2, -1.0):
        study.enqueue_trial({"train.lr": lr})
    slow = sweep_file(toy, trials=3, prune={"after_trials": 1, "after_epochs": 0}, fixed={"train.pace": 4.0})
    run_sweep(Project(toy), slow)
    said = capsys.readouterr().out
    found = runs_of(toy)
    assert found["toy-0"].info.status == "FINISHED"
    assert found["toy-1"].info.status == "KILLED"
    assert found["toy-1"].data.tags["pulmo.pruned"] == "true"
    assert found["toy"].data.metrics["val.auroc"] == 0.8
    assert "toy-1: pruned" in said
    assert "toy-2: failed: " in said
    assert "input should be greater than 0, got -1.0" in said
    assert run(toy, "dvc", "exp", "list", "--name-only").split() == ["toy-0"]
    assert run(toy, "git", "status", "--porcelain", "-uno") == ""
    assert not [path for path in (toy / ".dvc/tmp/exps/standalone").iterdir() if path.name != "run"]
