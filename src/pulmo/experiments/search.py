"""The search of a sweep: trials one after the other, with those of other workers, up to the budget or a signal."""

import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.experiments.exchange import Exchange
from pulmo.experiments.project import Project
from pulmo.experiments.study import (
    HEARTBEAT,
    SILENCE,
    count_used,
    list_complete,
    list_lost,
    list_running,
    propose,
    queue_silent_trials,
    record_experiment,
    write_report,
)
from pulmo.experiments.sweep_file import Sweep
from pulmo.experiments.trials import TrialError, run_trial
from pulmo.tracking import trial_runs
from pulmo.tracking.contents import Run
from pulmo.tracking.store import DESCRIPTION

LOOK = 5.0  # seconds between two looks at other workers that are waited for
HOPELESS = 3  # trials that failed, where no other came to an end, after which a start gives up and keeps its budget


class Search:
    """One start of a sweep."""

    def __init__(
        self, project: Project, sweep: Sweep, study: optuna.Study, parent: Run, exchange: Exchange | None
    ) -> None:
        self.project = project
        self.sweep = sweep
        self.study = study
        self.parent = parent
        self.exchange = exchange
        self.folder = project.root / paths.REPORTS / "sweeps" / sweep.name
        self.stopping = Event()
        self.ends = time.monotonic() + (sweep.hours * 3600 or math.inf)

    def run(self) -> None:
        """Try params until the budget is used up, by whichever worker, or a signal stops it; then report."""
        with _on_signals(lambda *_: self.stopping.set()), self.following():
            while not self.try_on() or self.wait_for_others():
                pass
        if self.exchange:
            self.exchange.send_rest()
            if lacking := self.fetch_others():
                print(f"not on {self.exchange.remote} yet: {', '.join(lacking)}", flush=True)
        for name in list_lost(self.study):
            trial_runs.close_lost(self.project.store, self.parent, name)
        if list_complete(self.study):
            self.report()

    def try_on(self) -> bool:
        """Try params until this start has nothing left to begin; False where it lost a trial to another worker."""
        left = self.count_left()
        try:
            self.study.optimize(
                self.try_params,
                n_trials=left,
                timeout=None if self.ends == math.inf else max(0.0, self.ends - time.monotonic()),
                n_jobs=self.sweep.jobs if left is None else max(1, min(self.sweep.jobs, left)),
                catch=(TrialError,),
                callbacks=[self.stop_in_time],
            )
        except ValueError as error:
            if "Cannot tell a" not in str(error):
                raise
            print(f"a trial of this worker was given to another one: it was silent for {SILENCE} seconds", flush=True)
            return self.stopping.is_set()
        return True

    def count_left(self) -> int | None:
        """The trials that may still begin; None where only time bounds them."""
        return max(0, self.sweep.trials - count_used(self.study)) if self.sweep.trials else None

    def wait_for_others(self) -> bool:
        """Wait while other workers try params; True once there is a trial of theirs to be tried here."""
        announced = False
        while self.sweep.trials and not self.stopping.is_set() and time.monotonic() < self.ends:
            if queue_silent_trials(self.study) and self.count_left():
                return True
            if not (others := list_running(self.study)):
                return False
            if not announced:
                print(
                    f"waiting for {', '.join(others)}; what is silent for {SILENCE} seconds is tried here", flush=True
                )
                announced = True
            self.stopping.wait(LOOK)
        return False

    @contextmanager
    def following(self) -> Iterator[None]:
        """Fetch what other workers tried as it arrives."""
        if not self.exchange:
            yield
            return
        over = Event()

        def follow() -> None:
            while not over.wait(HEARTBEAT):
                with suppress(optuna.exceptions.StorageInternalError):
                    self.fetch_others()

        follower = Thread(target=follow)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()

    def fetch_others(self) -> list[str]:
        """Fetch the experiments of other workers, and tell of each that came; returns those that did not."""
        assert self.exchange
        trials = {f"{self.sweep.name}-{trial.number}": trial for trial in list_complete(self.study)}
        still_lacking = []
        for name in self.exchange.list_lacking(trials):
            if self.exchange.receive(name):
                trial = trials[name]
                result = _result_text(name, trial.value, trial.params)
                print(f"{result}  from {trial.user_attrs['checkout']}", flush=True)
            else:
                still_lacking.append(name)
        return still_lacking

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
        trial.set_user_attr("checkout", self.project.address)
        chosen = propose(trial, self.sweep)

        def is_poor(epoch: int, auroc: float) -> bool:
            with suppress(optuna.exceptions.StorageInternalError):  # a database may be away for a moment
                trial.report(auroc, epoch)
                return trial.should_prune()
            return False

        settings, log = self.sweep.fixed | chosen, self.folder / f"{name}.log"
        try:
            if self.exchange:
                self.exchange.check_unchanged()
            auroc = run_trial(self.project, name, settings, self.parent, log, is_poor, self.stopping)
        except TrialError as error:
            if self.stopping.is_set():
                self.study.enqueue_trial(chosen)
            else:
                trial.set_user_attr("error", str(error))
                print(f"{name}: failed: {error}", flush=True)
            raise
        except UserError:  # of this checkout; others may try it
            self.study.enqueue_trial(chosen)
            raise
        record_experiment(trial, name)
        if self.exchange and auroc is not None:
            self.exchange.send(name)
        print(_result_text(name, auroc, chosen), flush=True)
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
        if not list_complete(self.study):
            raise UserError(
                f"no trial of sweep {sweep.name} came to an end",
                f"the logs are in {self.folder}; once that is cured, the same command goes on, "
                "or give the sweep another name where its budget is used up",
            )
        if self.exchange and self.exchange.unsent:
            names = " ".join(self.exchange.unsent)
            raise UserError(
                f"not pushed, and here alone: {names}",
                f"once that is cured, `dvc exp push {self.exchange.remote} {names}`",
            )
        used = count_used(self.study)
        if used < sweep.trials and not sweep.hours:  # Optuna swallows an error of its last jobs
            raise UserError(
                f"sweep {sweep.name} ended after {used} of {sweep.trials} trials", "the same command goes on"
            )


def _result_text(name: str, auroc: float | None, params: dict[str, Any]) -> str:
    """The line that tells how a trial ended; without an AUROC it was pruned."""
    result = "pruned" if auroc is None else f"validation AUROC {auroc:.4f}"
    values = (f"{key}={value:.4g}" if type(value) is float else f"{key}={value}" for key, value in params.items())
    return f"{name}: {result}  {'  '.join(values)}"


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
