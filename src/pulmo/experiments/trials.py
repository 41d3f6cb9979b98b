"""One trial of a sweep: a DVC experiment, watched while it trains and stopped where it is not worth its time."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import psutil

from pulmo.base import paths
from pulmo.base.files import read_json
from pulmo.experiments.dvc import failure_reason, stop_stage, to_arguments
from pulmo.experiments.project import Project
from pulmo.tracking import trial_runs
from pulmo.tracking.contents import Run
from pulmo.tracking.runs import PARENT_RUN

POLL = 2.0  # seconds between two looks at a trial
LOST = 60.0  # seconds without a sign of life after which a trial counts as lost


class TrialError(Exception):
    """A trial that ended without a result, and why."""


def run_trial(
    project: Project,
    name: str,
    settings: Mapping[str, Any],
    sweep: Run,
    log: Path,
    is_poor: Callable[[int, float], bool],
    stopping: Event,
) -> float | None:
    """AUROC on validation of the experiment `name`, run in a temporary copy with `settings` over params.yaml; None
    where it was stopped because `is_poor` (epoch, AUROC on validation) said so.

    What the stages print goes to `log`. TrialError where the experiment failed, or `stopping` was set meanwhile.
    """
    watch = _Watch(project, name, sweep, log)
    arguments = ("--wait-for-lock", "exp", "run", "--temp", "-n", name, *to_arguments(settings))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = project.dvc.start(*arguments, log=output, **{PARENT_RUN: sweep.run_id})
    try:
        while True:
            ended = process.poll()
            trial = watch.look(ended is None)
            if ended is not None and (commits := watch.find_commits()):
                return _read_result(project, commits.pop())
            watch.raise_failure(ended)
            if trial and watch.has_poor_epoch(trial, is_poor):
                _stop(process, trial.pid)
                if not watch.find_commits():  # else it was over before it could be stopped
                    trial_runs.mark_pruned(project.store, trial)
                    _forget(project.root, trial.run_id)
                    return None
            if stopping.wait(POLL):
                raise TrialError("the sweep was stopped")
    finally:
        stop_stage(process)


class _Watch:
    """A trial under way: its signs of life, and the epochs that were judged."""

    def __init__(self, project: Project, name: str, sweep: Run, log: Path) -> None:
        self.project = project
        self.name = name
        self.sweep = sweep
        self.log = log
        self.earlier = project.dvc.find_commits(name)
        self.epochs: set[int] = set()
        self.alive = time.monotonic()

    def look(self, dvc_runs: bool) -> trial_runs.Trial | None:
        """The run of the trial as it stands now."""
        trial = trial_runs.read_trial(self.project.store, self.sweep, self.name)
        if dvc_runs or (trial and trial.status == "RUNNING"):
            self.alive = time.monotonic()
        return trial

    def find_commits(self) -> set[str]:
        """The commit of the experiment, once DVC has recorded it."""
        return self.project.dvc.find_commits(self.name) - self.earlier

    def raise_failure(self, ended: int | None) -> None:
        """TrialError where dvc `ended` with an error, or long ago without a result."""
        # `dvc exp run --temp` takes what it finds in a common place: now and then another one runs this experiment.
        if ended or (ended == 0 and time.monotonic() - self.alive > LOST):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            raise TrialError(f"{failure_reason(text)}; see {self.log}")

    def has_poor_epoch(self, trial: trial_runs.Trial, is_poor: Callable[[int, float], bool]) -> bool:
        """True where one of the epochs that are new is poor; each is judged once."""
        for epoch, auroc in sorted(trial.val_auroc.items()):
            if epoch not in self.epochs and is_poor(epoch, auroc):
                return True
            self.epochs.add(epoch)
        return False


def _read_result(project: Project, commit: str) -> float:
    metrics = json.loads(project.dvc.read(paths.METRICS, commit))
    if "auroc" not in metrics["val"]:
        raise TrialError("its AUROC on validation is undefined")
    return float(metrics["val"]["auroc"])


def _stop(process: subprocess.Popen[bytes], pid: int) -> None:
    """Stop the stage that DVC runs, and the process `pid` too where another DVC has started it."""
    if pid not in stop_stage(process):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).terminate()


def _forget(root: Path, run_id: str) -> None:
    """Delete the state from which the stopped training could go on."""
    for file in (root / ".resume").glob(f"*/{paths.MLFLOW_RUN.name}"):
        with suppress(FileNotFoundError):  # another training has ended since, and took its state away
            if read_json(file)["run_id"] == run_id:
                shutil.rmtree(file.parent, ignore_errors=True)
