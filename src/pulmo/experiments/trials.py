"""One trial of a sweep: a DVC experiment, watched while it trains and stopped where it is not worth its time."""

import json
import os
import shutil
import signal
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
from pulmo.experiments.dvc import dvc_command, failure_reason, to_arguments
from pulmo.experiments.revisions import find_commits, read_output
from pulmo.tracking import sweeps
from pulmo.tracking.contents import Run
from pulmo.tracking.runs import PARENT_RUN

POLL = 2.0  # seconds between two looks at a trial
LOST = 60.0  # seconds without a sign of life after which a trial counts as lost
GRACE = 60.0  # seconds that a stopped stage has to end its run


class TrialError(Exception):
    """A trial that ended without a result, and why."""


def run_trial(
    root: Path,
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
    log.parent.mkdir(parents=True, exist_ok=True)
    earlier = find_commits(root, name)
    command = dvc_command(root, "--wait-for-lock", "exp", "run", "--temp", "-n", name, *to_arguments(settings))
    command["env"] = {**command["env"], PARENT_RUN: sweep.run_id}
    with log.open("w") as output:
        process = subprocess.Popen(
            **command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the sweep, which then stops its trials one by one
        )
    epochs: set[int] = set()
    alive = time.monotonic()
    try:
        while True:
            ended = process.poll() is not None
            trial = sweeps.read_trial(sweep, name)
            if not ended or (trial and trial.status == "RUNNING"):
                alive = time.monotonic()
            if ended and (commits := find_commits(root, name) - earlier):
                metrics = json.loads(read_output(root, str(paths.METRICS), commits.pop()))
                if "auroc" not in metrics["val"]:
                    raise TrialError("its AUROC on validation is undefined")
                return float(metrics["val"]["auroc"])
            # `dvc exp run --temp` takes what it finds in a common place: now and then another one runs this experiment.
            if ended and (process.returncode or time.monotonic() - alive > LOST):
                told = log.read_text(encoding="utf-8", errors="replace")
                raise TrialError(f"{failure_reason(told)}; see {log}")
            for epoch, auroc in sorted(trial.val_auroc.items()) if trial else ():
                if trial and epoch not in epochs and is_poor(epoch, auroc):
                    _stop(process, trial.pid)
                    if not find_commits(root, name) - earlier:  # else it was over before it could be stopped
                        sweeps.mark_pruned(sweep, trial)
                        _forget(root, trial.run_id)
                        return None
                epochs.add(epoch)
            if stopping.wait(POLL):
                raise TrialError("the sweep was stopped")
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes], pid: int | None = None) -> None:
    """Stop the stage that DVC runs (or the process `pid`), not DVC itself, which then cleans up after the stage."""
    deadline, told = time.monotonic() + GRACE, set()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.pid not in told:  # twice would cut short what it does on the first
                    told.add(child.pid)
                    child.terminate()
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.2)
    if pid and pid not in told:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).terminate()


def _forget(root: Path, run_id: str) -> None:
    """Delete the state from which the stopped training could go on."""
    for file in (root / ".resume").glob(f"*/{paths.MLFLOW_RUN.name}"):
        if read_json(file)["run_id"] == run_id:
            shutil.rmtree(file.parent, ignore_errors=True)
