"""Sweeps: Optuna proposes params, and each trial is a DVC experiment and an MLflow run below the run of the sweep.

Trials are judged by their AUROC on validation alone. The study lives in a database: a killed sweep goes on where it
was, and several workers, on one machine or many, share one study.
"""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.experiments.aside import prepare_aside
from pulmo.experiments.project import Project
from pulmo.experiments.study import count_used, has_result, keep_space, open_study, propose, write_report
from pulmo.experiments.sweep_file import Sweep, read_sweep
from pulmo.experiments.trials import TrialError, run_trial
from pulmo.tracking import trial_runs
from pulmo.tracking.contents import Run
from pulmo.tracking.store import DESCRIPTION

HOPELESS = 3  # trials that failed, where no other came to an end, after which a start gives up and keeps its budget


def run_sweep(project: Project, file: Path, storage: str = "") -> Path:
    """Run a sweep, or go on with one, up to its budget; returns the folder of its reports, sweep.json and history.png.

    Budget: trials count over every start and worker, also those that failed; hours count from this start. The study is
    kept in optuna.db at the root of the project unless `storage` names another database. UserError where it was
    stopped, or no trial came to an end.
    """
    sweep = read_sweep(file, project.root / paths.PARAMS)
    prepare_aside(project)
    here = f"{socket.gethostname()}:{project.root}"
    study = open_study(sweep, storage or f"sqlite:///{project.root / 'optuna.db'}", here if storage else "")
    _check_names(project, sweep, study, file)
    keep_space(sweep, study, file)
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
        left = max(0, budget - count_used(self.study)) if budget else None
        with _on_signals(lambda *_: self.stopping.set()):
            self.study.optimize(
                self.try_params,
                n_trials=left,
                timeout=self.sweep.hours * 3600 or None,
                n_jobs=self.sweep.jobs if left is None else max(1, min(self.sweep.jobs, left)),
                catch=(TrialError,),
                callbacks=[self.stop_in_time],
            )
        if has_result(self.study):
            self.report()

    def report(self) -> None:
        """Write the results so far into files and the run of the sweep."""
        best, auroc = write_report(self.study, self.folder)
        for file in ("sweep.json", "history.png"):
            self.parent.log_path(self.folder / file)
        self.parent.log_metrics({"val.auroc": auroc})
        trials = f"{len(self.study.trials)} trials stand below, each an experiment of DVC under the same name"
        text = f"A search of params by `pulmo sweep`. Best: {best}, validation AUROC {auroc:.4f}. The {trials}."
        self.parent.set_tags({"pulmo.best": best, DESCRIPTION: text})

    def try_params(self, trial: optuna.Trial) -> float:
        """The AUROC on validation with the params that Optuna proposes for a trial."""
        name = f"{self.sweep.name}-{trial.number}"
        own = psutil.Process()
        trial.set_user_attr("process", (socket.gethostname(), own.pid, own.create_time()))
        trial.set_user_attr("checkout", f"{socket.gethostname()}:{self.project.root}")
        chosen = propose(trial, self.sweep)

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

    def stop_in_time(self, study: optuna.Study, _: FrozenTrial) -> None:
        """Begin no further trial after a signal, where every trial fails, or where the budget is used up."""
        trials = study.get_trials(deepcopy=False)
        hopeless = len(trials) >= HOPELESS and all("error" in trial.user_attrs for trial in trials)
        if self.stopping.is_set() or hopeless or (self.sweep.trials and count_used(study) >= self.sweep.trials):
            study.stop()

    def check_end(self) -> None:
        """UserError where the sweep did not come to its end."""
        sweep = self.sweep
        if self.stopping.is_set():
            raise UserError(f"sweep {sweep.name} was stopped", "the same command goes on with it")
        if not has_result(self.study):
            raise UserError(
                f"no trial of sweep {sweep.name} came to an end",
                f"the logs are in {self.folder}; once that is cured, the same command goes on, "
                "or give the sweep another name where its budget is used up",
            )
        used = count_used(self.study)
        if used < sweep.trials and not sweep.hours:  # Optuna swallows an error of its last jobs
            raise UserError(
                f"sweep {sweep.name} ended after {used} of {sweep.trials} trials", "the same command goes on"
            )


def _params_text(params: dict[str, Any]) -> str:
    return "  ".join(
        f"{key}={value:.4g}" if type(value) is float else f"{key}={value}" for key, value in params.items()
    )


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
