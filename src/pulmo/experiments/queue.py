"""DVC's experiment queue, run to its end: DVC itself starts workers and leaves, whatever becomes of the experiments."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.process import process_lives
from pulmo.experiments.dvc import dvc_command, failure_reason, run_dvc
from pulmo.experiments.listing import read_experiments

_WAITING = ("Queued", "Running")
Tasks = dict[str, tuple[str, str]]  # by short hash: name and state


def run_queue(
    root: Path,
    jobs: int,
    report: Callable[[str], None] = print,
    poll: float = 4,
    patience: float = 120,
    gone: float = 12,
) -> None:
    """Run what is queued, `jobs` at a time, and say what starts and ends; UserError that names what failed.

    Watches the state of the tasks, not the workers, which can hang after their last task. Where nothing moves for
    `patience` seconds and no experiment's process lives, or for `gone` seconds and no worker answers, workers are
    started once more; where that moves nothing for `patience` seconds, the rest is given up.
    """
    last: Tasks = {}
    now = _update({}, read_queue(root)[0])
    if not now:
        report("nothing is queued; `dvc exp run --queue -S train.lr=0.001,0.0003` queues two experiments")
        return
    _start_workers(root, jobs)
    began = moved = time.monotonic()
    restarted = False
    while any(state in _WAITING for _, state in now.values()):
        time.sleep(poll)
        told, workers = read_queue(root)
        last, now = now, _update(now, told)
        done = sum(state not in _WAITING for _, state in now.values())
        for task, (name, state) in now.items():
            if task in last and state != last[task][1]:
                report(f"{time.monotonic() - began:6.0f} s  {name}: {state.lower()}  ({done} of {len(now)} done)")
        running = [task for task, (_, state) in now.items() if state == "Running"]
        still = time.monotonic() - moved
        if now != last or any(_lives(root, task) for task in running):
            moved, restarted = time.monotonic(), False
        elif restarted and still > patience:
            break
        # A worker may obey an order to stop that was meant for an earlier one, and leave what is queued.
        elif not restarted and still > (patience if workers or running else gone):
            report("nothing moves; starting the workers once more")
            _start_workers(root, jobs)
            moved, restarted = time.monotonic(), True
    run_dvc(root, "queue", "stop")  # else they wait a while, and run what is queued next where nobody watches
    _raise_failures(root, now, report)


def _update(known: Tasks, told: Tasks) -> Tasks:
    """The tasks that are watched: those known, whatever became of them, and those that are waiting now."""
    # A task that ended without a result is in none of DVC's lists.
    watched = {task: told.get(task, (name, "Failed")) for task, (name, _) in known.items()}
    return watched | {task: entry for task, entry in told.items() if entry[1] in _WAITING}


def read_queue(root: Path) -> tuple[Tasks, int]:
    """Every task that DVC remembers, Queued, Running, Failed or Success, and how many workers answer."""
    text = run_dvc(root, "queue", "status")
    lines = [line.split() for line in text.splitlines()]
    states = (*_WAITING, "Failed", "Success")
    tasks = {words[0]: (words[1], words[-1]) for words in lines if len(words) > 3 and words[-1] in states}
    return tasks, sum(map(int, re.findall(r"(\d+) (?:active|idle)", text)))


def _start_workers(root: Path, jobs: int) -> None:
    # Never piped: a worker holds what it was given as stdout, for ever where it hangs.
    command = dvc_command(root, "queue", "start", "--jobs", str(jobs))
    if subprocess.run(**command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise UserError(f"no worker could be started in {root}", "`dvc queue start` says why")


def _raise_failures(root: Path, tasks: Tasks, report: Callable[[str], None]) -> None:
    recorded = {
        experiment.name for experiment in read_experiments(root) if experiment.state in ("Success", "Unfinished")
    }
    reasons = {}
    for name, state in tasks.values():
        if state == "Failed":
            log = _read_log(root, name)
            report(f"\nlast lines of {name}:\n" + "\n".join(f"    {line}" for line in log.splitlines()[-8:]))
            reasons[name] = failure_reason(log)
        elif state in _WAITING:
            reasons[name] = (
                f"still {state.lower()} without a process (hint: `dvc queue kill {name}`, then queue it again)"
            )
        elif name not in recorded:
            reasons[name] = "ran, but DVC recorded nothing (hint: `pulmo doctor` says whether the clone is shallow)"
    if reasons:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UserError(
            f"{len(reasons)} of {len(tasks)} experiments failed: {told}",
            "cure that and queue them again with `dvc exp run --queue`",
        )


def _read_log(root: Path, name: str) -> str:
    try:
        return run_dvc(root, "queue", "logs", name)
    except UserError:  # it failed before it had a log
        return ""


def _lives(root: Path, task: str) -> bool:
    """Whether the process that DVC started for a task is there; while it is being set up, DVC names none."""
    for file in (root / ".dvc" / "tmp" / "exps" / "run").glob(f"{task}*/*.json"):
        return process_lives(int(json.loads(file.read_text(encoding="utf-8"))["pid"]))
    return False
