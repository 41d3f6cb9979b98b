"""Sweeps: Optuna proposes params, and each trial is a DVC experiment and an MLflow run below the run of the sweep.

Trials are judged by their AUROC on validation alone. The study lives in a database: a killed sweep goes on where it
was, and several workers, on one machine or many, share one study.
"""

import math
import signal
import socket
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Self

import optuna
import psutil
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.files import write_json
from pulmo.base.params import Count, Positive, Section, flatten, read_section
from pulmo.base.process import process_lives
from pulmo.base.yaml import read_yaml
from pulmo.experiments.revisions import check_history, find_commits
from pulmo.experiments.trials import TrialError, run_trial
from pulmo.reporting import plots
from pulmo.tracking import sweeps
from pulmo.tracking.contents import Run

SUGGEST: dict[str, Callable[[optuna.Trial, str, list[Any]], Any]] = {
    "float": lambda trial, key, span: trial.suggest_float(key, *span),
    "log": lambda trial, key, span: trial.suggest_float(key, *span, log=True),
    "int": lambda trial, key, span: trial.suggest_int(key, *span),
    "choice": lambda trial, key, values: trial.suggest_categorical(key, values),
}
NEEDED = {
    "float": "two numbers, the lower one first",
    "log": "two numbers above 0, the lower one first",
    "int": "two whole numbers, the lower one first",
    "choice": "two different values or more",
}
HOPELESS = 3  # trials that failed, where no other came to an end, after which a start gives up and keeps its budget
HEARTBEAT = 10  # seconds; a trial of another machine that was silent for three of them is tried again


class PruneParams(Section):
    """When a trial whose best AUROC is below the median of the others at that epoch is stopped."""

    after_trials: Count
    after_epochs: Count


class Sweep(Section):
    """A sweep as its YAML file tells it; every key is explained in recipes/sweep.yaml."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
    trials: Count = 0
    hours: Annotated[float, Field(ge=0)] = 0.0
    jobs: Positive = 1
    seed: Count = 0
    prune: PruneParams | None = None
    fixed: Annotated[dict[str, Any], Field(default_factory=dict)]
    space: Annotated[dict[str, dict[str, list[Any]]], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.trials and not self.hours:
            raise ValueError("trials and hours are both 0", "bound the sweep by one of them")
        for key, dimension in self.space.items():
            kind, values = next(iter(dimension.items()), ("", []))
            if len(dimension) != 1 or kind not in SUGGEST:
                raise ValueError(
                    f"space.{key} is of no known kind",
                    "write one of {float: [low, high]}, log, int, or {choice: [a, b]}",
                )
            numbers = all(type(value) is int or (type(value) is float and kind != "int") for value in values)
            ordered = numbers and len(values) == 2 and (0 if kind == "log" else -math.inf) < values[0] < values[1]
            if not (len(set(map(repr, values))) > 1 if kind == "choice" else ordered and values[1] < math.inf):
                raise ValueError(f"space.{key}: got {values}", f"{kind} needs {NEEDED[kind]}")
            if key in self.fixed:
                raise ValueError(f"space.{key} is in fixed too", "remove it there or here")
        return self


def read_sweep(file: Path, params: Path) -> Sweep:
    """Read a sweep and check its keys against params.yaml; UserError that names file and key."""
    sweep = read_section(file, Sweep)
    known = flatten(read_yaml(params))
    if unknown := [key for key in (*sweep.fixed, *sweep.space) if key not in known]:
        raise UserError(f"{file}: {unknown[0]} is no key of params.yaml", "write it as train.lr")
    return sweep


def open_study(sweep: Sweep, storage: str, worker: str = "") -> optuna.Study:
    """The study in the database `storage`, made where it is missing; trials of dead processes are queued again.

    One job in one checkout proposes the same params every time; with more, `worker` keeps them from proposing the same.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are
    again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
    sqlite = storage.startswith("sqlite")
    options = {"connect_args": {"timeout": 60, "isolation_level": None}} if sqlite else {}
    for attempt in range(4):
        try:
            database = optuna.storages.RDBStorage(
                storage, options, heartbeat_interval=HEARTBEAT, heartbeat_stale_trial_callback=again
            )
            break
        except Exception as error:  # of whatever driver the URL names
            if attempt == 3:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"the study's database cannot be used ({reason})", "check --storage") from None
            time.sleep(1)  # two first workers may be making the tables at once
    if sqlite:  # it has no row locks: without this two jobs may both take the trial that waits first
        sqlalchemy.event.listen(database.engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    prune = sweep.prune
    study = optuna.create_study(
        storage=database,
        study_name=sweep.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(prune.after_trials, prune.after_epochs)
        if prune
        else optuna.pruners.NopPruner(),
    )
    begun = f"{sweep.seed} {len(study.trials)} {worker}"
    study.sampler = optuna.samplers.TPESampler(seed=zlib.crc32(begun.encode()), constant_liar=True)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        host, pid, started = trial.user_attrs.get("process", ("", 0, 0.0))
        if host == socket.gethostname() and not process_lives(pid, started):
            with suppress(ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)
    return study


def run_sweep(root: Path, file: Path, storage: str = "") -> Path:
    """Run a sweep, or go on with one, up to its budget; returns the folder of its reports, sweep.json and history.png.

    Budget: trials count over every start and worker, also those that failed; hours count from this start. The study is
    kept in optuna.db at `root` unless `storage` names another database. UserError where it was stopped, or no trial
    came to an end.
    """
    sweep = read_sweep(file, root / paths.PARAMS)
    check_history(root)
    here = f"{socket.gethostname()}:{root}"
    study = open_study(sweep, storage or f"sqlite:///{root / 'optuna.db'}", here if storage else "")
    if not study.trials and find_commits(root, f"{sweep.name}-[0-9]*"):
        raise UserError(
            f"{file}: name: experiments of another study {sweep.name} are there",
            "take a new name, or remove them with `dvc exp remove`",
        )
    before = study.user_attrs.get("space", {})
    for key, dimension in sweep.space.items():  # Optuna lets ranges change, but neither kinds nor choices
        former = before.get(key, dimension)
        if former.keys() != dimension.keys() or ("choice" in dimension and former != dimension):
            raise UserError(f"{file}: space.{key} was {former} in this study so far", "give the sweep another name")
    study.set_user_attr("space", before | sweep.space)
    parent = sweeps.open_sweep(root, sweep.name)
    folder = root / paths.REPORTS / "sweeps" / sweep.name
    stopping = Event()
    own = psutil.Process()
    process = (socket.gethostname(), own.pid, own.create_time())

    def objective(trial: optuna.Trial) -> float:
        name = f"{sweep.name}-{trial.number}"
        trial.set_user_attr("process", process)
        trial.set_user_attr("checkout", here)
        chosen = {
            key: SUGGEST[kind](trial, key, values)
            for key, dimension in sweep.space.items()
            for kind, values in dimension.items()
        }

        def is_poor(epoch: int, auroc: float) -> bool:
            trial.report(auroc, epoch)
            return trial.should_prune()

        told = "  ".join(
            f"{key}={value:.4g}" if type(value) is float else f"{key}={value}" for key, value in chosen.items()
        )
        try:
            auroc = run_trial(root, name, sweep.fixed | chosen, parent, folder / f"{name}.log", is_poor, stopping)
        except TrialError as error:
            if stopping.is_set():
                study.enqueue_trial(chosen)
            else:
                trial.set_user_attr("error", str(error))
                print(f"{name}: failed: {error}", flush=True)
            raise
        print(f"{name}: {'pruned' if auroc is None else f'validation AUROC {auroc:.4f}'}  {told}", flush=True)
        if auroc is None:
            raise optuna.TrialPruned
        return auroc

    def stop_in_time(study: optuna.Study, _: FrozenTrial) -> None:
        trials = study.get_trials(deepcopy=False)
        hopeless = len(trials) >= HOPELESS and all("error" in trial.user_attrs for trial in trials)
        if stopping.is_set() or hopeless or (sweep.trials and _count_used(study) >= sweep.trials):
            study.stop()

    left = max(0, sweep.trials - _count_used(study)) if sweep.trials else None
    status = "FAILED"
    try:
        with _on_signals(lambda *_: stopping.set()):
            study.optimize(
                objective,
                n_trials=left,
                timeout=sweep.hours * 3600 or None,
                n_jobs=sweep.jobs if left is None else max(1, min(sweep.jobs, left)),
                catch=(TrialError,),
                callbacks=[stop_in_time],
            )
        if ended := study.get_trials(states=(TrialState.COMPLETE,)):
            _report(study, parent, folder)
        if stopping.is_set():
            status = "KILLED"
            raise UserError(f"sweep {sweep.name} was stopped", "the same command goes on with it")
        if not ended:
            raise UserError(
                f"no trial of sweep {sweep.name} came to an end",
                f"the logs are in {folder}; once that is cured, the same command goes on, "
                "or give the sweep another name where its budget is used up",
            )
        used = _count_used(study)
        if used < sweep.trials and not sweep.hours:  # Optuna swallows an error of its last jobs
            raise UserError(
                f"sweep {sweep.name} ended after {used} of {sweep.trials} trials", "the same command goes on"
            )
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        parent.client.set_terminated(parent.run_id, status)
    return folder


def _count_used(study: optuna.Study) -> int:
    """Trials that count for the budget: all but those waiting, stopped with their sweep, or lost with their process."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return sum(trial.state in states or "error" in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def _report(study: optuna.Study, parent: Run, folder: Path) -> None:
    """What the study found so far, into files and the run of the sweep."""
    best = study.best_trial
    ended = study.get_trials(states=(TrialState.COMPLETE,))
    importances = optuna.importance.get_param_importances(study) if len(ended) > 1 else {}
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    report = {
        "best": f"{study.study_name}-{best.number}",
        "checkout": best.user_attrs["checkout"],
        "val_auroc": best.value,
        "params": best.params,
        "importances": importances,
        "trials": {state.name.lower(): states.count(state) for state in TrialState if state in states},
    }
    write_json(folder / "sweep.json", report)
    curve = [(trial.number, trial.value or 0.0) for trial in ended]
    pruned = [
        (trial.number, max(trial.intermediate_values.values()))
        for trial in study.get_trials(states=(TrialState.PRUNED,))
        if trial.intermediate_values
    ]
    plots.draw_sweep(folder / "history.png", curve, pruned)
    for file in ("sweep.json", "history.png"):
        parent.log_path(folder / file)
    parent.log_metrics({"val.auroc": best.value})
    parent.set_tags({"pulmo.best": f"{study.study_name}-{best.number}"})


@contextmanager
def _on_signals(handler: Callable[..., None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and a closed terminal call `handler` instead of ending this process; nohup stays nohup."""
    ends = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handler) for number in ends}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
