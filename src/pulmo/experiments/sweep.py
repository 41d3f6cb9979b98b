"""Sweeps: Optuna proposes params, and each trial is a DVC experiment and an MLflow run below the run of the sweep.

Trials are judged by their AUROC on validation alone. The study lives in a database: a killed sweep goes on where it
was, and several workers, on one machine or many, share one study.
"""

import signal
import socket
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import optuna
import psutil
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from pulmo.base import paths
from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError
from pulmo.base.files import write_json
from pulmo.base.process import process_lives
from pulmo.experiments.project import Project
from pulmo.experiments.revisions import check_history
from pulmo.experiments.sweep_file import Sweep, read_sweep
from pulmo.experiments.trials import TrialError, run_trial
from pulmo.reporting import figures
from pulmo.tracking import trial_runs
from pulmo.tracking.contents import Run

SUGGEST: dict[str, Callable[[optuna.Trial, str, list[Any]], Any]] = {
    "float": lambda trial, key, span: trial.suggest_float(key, *span),
    "log": lambda trial, key, span: trial.suggest_float(key, *span, log=True),
    "int": lambda trial, key, span: trial.suggest_int(key, *span),
    "choice": lambda trial, key, values: trial.suggest_categorical(key, values),
}
HOPELESS = 3  # trials that failed, where no other came to an end, after which a start gives up and keeps its budget
HEARTBEAT = 10  # seconds; a trial of another machine that was silent for three of them is tried again


def open_study(sweep: Sweep, storage: str, worker: str = "") -> optuna.Study:
    """The study in the database `storage`, made where it is missing; trials of dead processes are queued again.

    One job in one checkout proposes the same params every time; with more, `worker` keeps them from proposing the same.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are
    prune = sweep.prune
    study = optuna.create_study(
        storage=_open_database(storage),
        study_name=sweep.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(prune.after_trials, prune.after_epochs)
        if prune
        else optuna.pruners.NopPruner(),
    )
    begun = f"{sweep.seed} {len(study.trials)} {worker}"
    study.sampler = optuna.samplers.TPESampler(seed=zlib.crc32(begun.encode()), constant_liar=True)
    _queue_dead_trials(study)
    return study


def _open_database(storage: str) -> optuna.storages.RDBStorage:
    again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
    sqlite = storage.startswith("sqlite")
    options = {"connect_args": {"timeout": 60, "isolation_level": None}} if sqlite else {}
    if "://" not in storage:
        raise UserError(f"--storage {show_address(storage)} is no address", "write scheme://host/database")
    for attempt in range(4):
        try:
            database = optuna.storages.RDBStorage(
                storage, options, heartbeat_interval=HEARTBEAT, heartbeat_stale_trial_callback=again
            )
            break
        except Exception as error:  # of whatever driver the URL names
            if attempt == 3:
                reason = hide_secrets(str(error).strip().splitlines()[0], storage)
                raise UserError(f"the study's database cannot be used ({reason})", "check --storage") from None
            time.sleep(1)  # two first workers may be making the tables at once
    if sqlite:  # it has no row locks: without this two jobs may both take the trial that waits first
        sqlalchemy.event.listen(database.engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    return database


def _queue_dead_trials(study: optuna.Study) -> None:
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        host, pid, started = trial.user_attrs.get("process", ("", 0, 0.0))
        if host == socket.gethostname() and not process_lives(pid, started):
            with suppress(ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)


def run_sweep(project: Project, file: Path, storage: str = "") -> Path:
    """Run a sweep, or go on with one, up to its budget; returns the folder of its reports, sweep.json and history.png.

    Budget: trials count over every start and worker, also those that failed; hours count from this start. The study is
    kept in optuna.db at the root of the project unless `storage` names another database. UserError where it was
    stopped, or no trial came to an end.
    """
    sweep = read_sweep(file, project.root / paths.PARAMS)
    check_history(project)
    here = f"{socket.gethostname()}:{project.root}"
    study = open_study(sweep, storage or f"sqlite:///{project.root / 'optuna.db'}", here if storage else "")
    _check_names(project, sweep, study, file)
    _keep_space(sweep, study, file)
    parent = trial_runs.open_sweep(project.store, sweep.name)
    search = _Search(project, sweep, study, parent)
    status = "FAILED"
    try:
        search.run()
        status = "KILLED" if search.stopping.is_set() else status
        search.check_end()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        project.store.client.set_terminated(parent.run_id, status)
    return search.folder


def _check_names(project: Project, sweep: Sweep, study: optuna.Study, file: Path) -> None:
    if not study.trials and project.dvc.find_commits(f"{sweep.name}-[0-9]*"):
        raise UserError(
            f"{file}: name: experiments of another study {sweep.name} are there",
            "take a new name, or remove them with `dvc exp remove`",
        )


def _keep_space(sweep: Sweep, study: optuna.Study, file: Path) -> None:
    """Keep the space with the study; UserError where it had another kind or other choices so far."""
    before = study.user_attrs.get("space", {})
    for key, dimension in sweep.space.items():  # Optuna lets ranges change, but neither kinds nor choices
        former = before.get(key, dimension)
        if former.keys() != dimension.keys() or ("choice" in dimension and former != dimension):
            raise UserError(f"{file}: space.{key} was {former} in this study so far", "give the sweep another name")
    study.set_user_attr("space", before | sweep.space)


class _Search:
    """One start of a sweep."""

    def __init__(self, project: Project, sweep: Sweep, study: optuna.Study, parent: Run) -> None:
        self.project = project
        self.sweep = sweep
        self.study = study
        self.parent = parent
        self.folder = project.root / paths.REPORTS / "sweeps" / sweep.name
        self.stopping = Event()

    def run(self) -> None:
        """Try params until the budget is used up, or a signal stops it; then report."""
        budget = self.sweep.trials
        left = max(0, budget - _count_used(self.study)) if budget else None
        with _on_signals(lambda *_: self.stopping.set()):
            self.study.optimize(
                self.try_params,
                n_trials=left,
                timeout=self.sweep.hours * 3600 or None,
                n_jobs=self.sweep.jobs if left is None else max(1, min(self.sweep.jobs, left)),
                catch=(TrialError,),
                callbacks=[self.stop_in_time],
            )
        if self.study.get_trials(states=(TrialState.COMPLETE,)):
            _report(self.study, self.parent, self.folder)

    def try_params(self, trial: optuna.Trial) -> float:
        """The AUROC on validation with the params that Optuna proposes for a trial."""
        name = f"{self.sweep.name}-{trial.number}"
        own = psutil.Process()
        trial.set_user_attr("process", (socket.gethostname(), own.pid, own.create_time()))
        trial.set_user_attr("checkout", f"{socket.gethostname()}:{self.project.root}")
        chosen = self._propose(trial)

        def is_poor(epoch: int, auroc: float) -> bool:
            trial.report(auroc, epoch)
            return trial.should_prune()

        settings, log = self.sweep.fixed | chosen, self.folder / f"{name}.log"
        try:
            auroc = run_trial(self.project, name, settings, self.parent, log, is_poor, self.stopping)
        except TrialError as error:
            if self.stopping.is_set():
                self.study.enqueue_trial(chosen)
            else:
                trial.set_user_attr("error", str(error))
                print(f"{name}: failed: {error}", flush=True)
            raise
        result = "pruned" if auroc is None else f"validation AUROC {auroc:.4f}"
        print(f"{name}: {result}  {_params_text(chosen)}", flush=True)
        if auroc is None:
            raise optuna.TrialPruned
        return auroc

    def _propose(self, trial: optuna.Trial) -> dict[str, Any]:
        return {
            key: SUGGEST[kind](trial, key, values)
            for key, dimension in self.sweep.space.items()
            for kind, values in dimension.items()
        }

    def stop_in_time(self, study: optuna.Study, _: FrozenTrial) -> None:
        """Begin no further trial after a signal, where every trial fails, or where the budget is used up."""
        trials = study.get_trials(deepcopy=False)
        hopeless = len(trials) >= HOPELESS and all("error" in trial.user_attrs for trial in trials)
        if self.stopping.is_set() or hopeless or (self.sweep.trials and _count_used(study) >= self.sweep.trials):
            study.stop()

    def check_end(self) -> None:
        """UserError where the sweep did not come to its end."""
        sweep = self.sweep
        if self.stopping.is_set():
            raise UserError(f"sweep {sweep.name} was stopped", "the same command goes on with it")
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            raise UserError(
                f"no trial of sweep {sweep.name} came to an end",
                f"the logs are in {self.folder}; once that is cured, the same command goes on, "
                "or give the sweep another name where its budget is used up",
            )
        used = _count_used(self.study)
        if used < sweep.trials and not sweep.hours:  # Optuna swallows an error of its last jobs
            raise UserError(
                f"sweep {sweep.name} ended after {used} of {sweep.trials} trials", "the same command goes on"
            )


def _params_text(params: dict[str, Any]) -> str:
    return "  ".join(
        f"{key}={value:.4g}" if type(value) is float else f"{key}={value}" for key, value in params.items()
    )


def _count_used(study: optuna.Study) -> int:
    """Trials that count for the budget: all but those waiting, stopped with their sweep, or lost with their process."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return sum(trial.state in states or "error" in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def _report(study: optuna.Study, parent: Run, folder: Path) -> None:
    """Write what the study found so far into files and the run of the sweep."""
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
    figures.draw_sweep(folder / "history.png", curve, pruned)
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
