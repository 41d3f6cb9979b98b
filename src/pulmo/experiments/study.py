"""The study of a sweep: the database in which Optuna keeps its trials, for every start and every worker."""

import socket
import time
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError, walk_causes
from pulmo.base.files import write_json
from pulmo.base.process import process_lives
from pulmo.experiments.sweep_file import Sweep
from pulmo.reporting import figures

_SUGGEST: dict[str, Callable[[optuna.Trial, str, list[Any]], Any]] = {
    "float": lambda trial, key, span: trial.suggest_float(key, *span),
    "log": lambda trial, key, span: trial.suggest_float(key, *span, log=True),
    "int": lambda trial, key, span: trial.suggest_int(key, *span),
    "choice": lambda trial, key, values: trial.suggest_categorical(key, values),
}
HEARTBEAT = 15  # seconds between two signs of life of a trial
SILENCE = 60  # seconds without one, after which the next worker that is free tries it again


class _Database(optuna.storages.RDBStorage):
    """The database of a study, which may be away for a moment while trials run."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a sign of life. One that is not taken must not end the thread that sends them."""
        with suppress(optuna.exceptions.StorageInternalError):
            super().record_heartbeat(trial_id)


def open_study(sweep: Sweep, storage: str, worker: str = "") -> optuna.Study:
    """The study in the database `storage`, made where it is missing; trials of dead processes are queued again.

    One job in one checkout proposes the same params every time; with more, `worker` keeps them from proposing the same.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if prune := sweep.prune:
        pruner = optuna.pruners.MedianPruner(prune.after_trials, prune.after_epochs)
    study = optuna.create_study(
        storage=_open_database(storage),
        study_name=sweep.name,
        direction="maximize",
        load_if_exists=True,
        pruner=pruner,
    )
    begun = f"{sweep.seed} {len(study.trials)} {worker}"
    study.sampler = optuna.samplers.TPESampler(seed=zlib.crc32(begun.encode()), constant_liar=True)
    _queue_dead_trials(study)
    return study


def lost_database(error: Exception, storage: str) -> UserError | None:
    """The error that says why the database of a study no longer answers; None where that is not the cause."""
    for cause in walk_causes(error):  # Optuna may stumble over itself when its storage fails
        if isinstance(cause, optuna.exceptions.StorageInternalError):
            reason = hide_secrets(_first_line(cause.__cause__ or cause), storage)
            return UserError(
                f"the study's database no longer answers ({reason})", "the same command goes on once it does"
            )
    return None


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _open_database(storage: str) -> _Database:
    again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
    sqlite = storage.startswith("sqlite")
    options = {"connect_args": {"timeout": 60, "isolation_level": None}} if sqlite else {}
    if "://" not in storage:
        raise UserError(f"--storage {show_address(storage)} is no address", "write scheme://host/database")
    for attempt in range(4):
        try:
            _refuse_mlflow(storage, options)
            database = _Database(
                storage,
                options | {"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT,
                grace_period=SILENCE,
                heartbeat_stale_trial_callback=again,
            )
            break
        except UserError:
            raise
        except Exception as error:  # of whatever driver the URL names
            if attempt == 3:
                reason = hide_secrets(_first_line(error), storage)
                raise UserError(f"the study's database cannot be used ({reason})", "check --storage") from None
            time.sleep(1)  # two first workers may be making the tables at once
    if sqlite:  # it has no row locks: without this two jobs may both take the trial that waits first
        sqlalchemy.event.listen(database.engine, "begin", lambda link: link.exec_driver_sql("BEGIN IMMEDIATE"))
    return database


def _refuse_mlflow(storage: str, options: dict[str, Any]) -> None:
    """UserError where MLflow has the database: the tables that tell of versions would be one and the same."""
    tables = sqlalchemy.inspect(sqlalchemy.create_engine(storage, poolclass=sqlalchemy.NullPool, **options))
    if {"alembic_version", "experiments"} <= set(tables.get_table_names()):
        raise UserError(f"--storage {show_address(storage)} is the database of MLflow", "give the study one of its own")


def _queue_dead_trials(study: optuna.Study) -> None:
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        host, pid, started = trial.user_attrs.get("process", ("", 0, 0.0))
        if host == socket.gethostname() and not process_lives(pid, started):
            with suppress(ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)


def keep_space(sweep: Sweep, study: optuna.Study, file: Path) -> None:
    """Keep the space with the study; UserError where it had another kind or other choices so far."""
    before = study.user_attrs.get("space", {})
    for key, dimension in sweep.space.items():  # Optuna lets ranges change, but neither kinds nor choices
        former = before.get(key, dimension)
        if former.keys() != dimension.keys() or ("choice" in dimension and former != dimension):
            raise UserError(f"{file}: space.{key} was {former} in this study so far", "give the sweep another name")
    study.set_user_attr("space", before | sweep.space)


def check_origin(sweep: Sweep, study: optuna.Study, commit: str) -> None:
    """UserError where the checkouts that share a study began with another commit or other fixed params."""
    former = study.user_attrs.get("origin", {})
    if former and former["commit"] != commit:
        raise UserError(
            f"sweep {sweep.name} tries commit {former['commit'][:7]}, and this checkout is at {commit[:7]}",
            f"`git fetch && git checkout {former['commit'][:7]}`, or give the sweep another name",
        )
    if former and former["fixed"] != sweep.fixed:
        raise UserError(
            f"sweep {sweep.name} has other fixed params than in this checkout: {former['fixed']}",
            "take the same file, or give the sweep another name",
        )


def keep_origin(sweep: Sweep, study: optuna.Study, commit: str) -> None:
    """Keep commit and fixed params with a study; UserError as in `check_origin`."""
    check_origin(sweep, study, commit)
    study.set_user_attr("origin", {"commit": commit, "fixed": sweep.fixed})


def propose(trial: optuna.Trial, sweep: Sweep) -> dict[str, Any]:
    """Value by key of params.yaml that Optuna proposes for a trial."""
    return {
        key: _SUGGEST[kind](trial, key, values)
        for key, dimension in sweep.space.items()
        for kind, values in dimension.items()
    }


def record_experiment(trial: optuna.Trial, name: str) -> None:
    """Note the experiment of a trial that ended; a database that is being restarted is waited for.

    Fails where the trial was given to another worker meanwhile.
    """
    until = time.monotonic() + SILENCE  # then it is given away
    while True:
        try:
            trial.set_user_attr("experiment", name)
            return
        except optuna.exceptions.StorageInternalError:
            if time.monotonic() > until:
                raise
            time.sleep(2)


def count_used(study: optuna.Study) -> int:
    """Trials that count for the budget: all but those waiting, stopped with their sweep, or lost with their process."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return sum(trial.state in states or "error" in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def list_complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def list_lost(study: optuna.Study) -> list[str]:
    """Names of the trials that were stopped or whose process is gone."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [f"{study.study_name}-{trial.number}" for trial in failed if "error" not in trial.user_attrs]


def queue_silent_trials(study: optuna.Study) -> bool:
    """Queue again what was silent for too long; True where trials wait to be tried."""
    optuna.storages.fail_stale_trials(study)
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def list_running(study: optuna.Study) -> list[str]:
    """The checkouts that are trying something now."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    # A trial has no checkout yet where its process is just beginning, and none for ever where that was killed then.
    return [trial.user_attrs["checkout"] for trial in running if "checkout" in trial.user_attrs]


def write_report(study: optuna.Study, folder: Path) -> tuple[str, float]:
    """Write sweep.json and history.png into `folder`; return name and AUROC on validation of the best trial so far."""
    best = study.best_trial
    ended = list_complete(study)
    importances = optuna.importance.get_param_importances(study) if len(ended) > 1 else {}
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    name, auroc = f"{study.study_name}-{best.number}", float(best.value or 0.0)
    report = {
        "best": name,
        "checkout": best.user_attrs["checkout"],
        "val_auroc": auroc,
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
    return name, auroc
