"""DVC's experiment queue, run to its end: DVC itself starts workers and leaves, whatever becomes of the experiments."""

import json
import time
from collections.abc import Callable, Sequence

from pulmo.base.errors import UserError
from pulmo.base.process import process_lives
from pulmo.experiments.aside import prepare_aside
from pulmo.experiments.dvc import Tasks, failure_reason
from pulmo.experiments.project import Project

_WAITING = ("Queued", "Running")


def run_queue(
    project: Project,
    jobs: int,
    report: Callable[[str], None] = print,
    poll: float = 4,
    patience: float = 120,
    gone: float = 12,
) -> None:
    """Run what is queued, `jobs` at a time, and say what starts and ends; UserError that names what failed.

    Watches the state of the tasks, not the workers, which can hang after their last task. Where nothing moves for
    `patience` seconds and no experiment's process lives, or for `gone` seconds and no worker answers, workers are
    started once more; where that moves nothing for `patience` seconds, the rest is given up. What failed before it had
    a log, as now and then happens to workers that begin at once, is queued once more.
    """
    prepare_aside(project)
    listed, workers = project.dvc.read_queue()
    tasks = _update({}, listed)
    if not tasks:
        report("nothing is queued; `dvc exp run --queue -S train.lr=0.001,0.0003` queues two experiments")
        return
    if not workers:
        tasks |= _queue_dead_again(project, tasks, report)
    project.dvc.start_workers(jobs)
    began = moved = time.monotonic()
    restarted, ended = False, set[str]()
    while any(state in _WAITING for _, state in tasks.values()):
        time.sleep(poll)
        listed, workers = project.dvc.read_queue()
        before, tasks = tasks, _correct(project, _update(tasks, listed))
        tasks |= _queue_lost_again(project, tasks, ended, report)
        _report_changes(before, tasks, time.monotonic() - began, report)
        running = [task for task, (_, state) in tasks.items() if state == "Running"]
        still = time.monotonic() - moved
        if tasks != before or any(_lives(project, task) for task in running):
            moved, restarted = time.monotonic(), False
        elif restarted and still > patience:
            break
        # A worker may obey an order to stop that was meant for an earlier one, and leave what is queued.
        elif not restarted and still > (patience if workers or running else gone):
            report("nothing moves; starting the workers once more")
            project.dvc.start_workers(jobs)
            moved, restarted = time.monotonic(), True
    project.dvc.run("queue", "stop")  # else they wait a while, and run what is queued next where nobody watches
    _raise_failures(project, tasks, report)


def _update(known: Tasks, listed: Tasks) -> Tasks:
    """The tasks that are watched: those known, whatever became of them, and those that are waiting now."""
    # A task that ended without a result is in none of DVC's lists.
    watched = {task: listed.get(task, (name, "Failed")) for task, (name, _) in known.items()}
    return watched | {task: entry for task, entry in listed.items() if entry[1] in _WAITING}


def _correct(project: Project, tasks: Tasks) -> Tasks:
    """The tasks with those as running whose process lives. While DVC notes how a task goes, it may be in no list."""
    failed = {task: name for task, (name, state) in tasks.items() if state == "Failed" and _lives(project, task)}
    return tasks | {task: (name, "Running") for task, name in failed.items()}


def _queue_dead_again(project: Project, tasks: Tasks, report: Callable[[str], None]) -> Tasks:
    """Queue tasks once more that died with their worker, as when the machine is started anew, and return them as
    queued."""
    running = [task for task, (_, state) in tasks.items() if state == "Running"]
    dead = [task for task in running if not _lives(project, task)]
    return _queue_again(project, tasks, dead, "died with its worker", report)


def _queue_lost_again(project: Project, tasks: Tasks, ended: set[str], report: Callable[[str], None]) -> Tasks:
    """Queue tasks once more that failed without a log, and return them as queued. `ended` were looked at before."""
    failed = [task for task, (_, state) in tasks.items() if state == "Failed" and task not in ended]
    ended.update(failed)
    return _queue_again(
        project, tasks, [task for task in failed if not _read_log(project, task)], "failed before it began", report
    )


def _queue_again(
    project: Project, tasks: Tasks, chosen: Sequence[str], what: str, report: Callable[[str], None]
) -> Tasks:
    again = [task for task in chosen if project.dvc.queue_again(task)]
    for task in again:
        report(f"{tasks[task][0]} {what}; it is queued once more")
    return {task: (tasks[task][0], "Queued") for task in again}


def _report_changes(before: Tasks, tasks: Tasks, seconds: float, report: Callable[[str], None]) -> None:
    done = sum(state not in _WAITING for _, state in tasks.values())
    for task, (name, state) in tasks.items():
        if task in before and state != before[task][1]:
            report(f"{seconds:6.0f} s  {name}: {state.lower()}  ({done} of {len(tasks)} done)")


def _raise_failures(project: Project, tasks: Tasks, report: Callable[[str], None]) -> None:
    reasons = {}
    for task, (name, state) in tasks.items():
        if state == "Failed" and (log := _read_log(project, task)):
            report(f"\nlast lines of {name}:\n" + "\n".join(f"    {line}" for line in log.splitlines()[-8:]))
            reasons[name] = failure_reason(log)
        elif state == "Failed":
            error = project.dvc.read_worker_error()
            reasons[name] = f"failed before it began ({error})" if error else failure_reason("")
        elif state in _WAITING:
            reasons[name] = (
                f"still {state.lower()} without a process (hint: `dvc queue kill {name}`, then queue it again)"
            )
        elif not project.dvc.find_commits(name):
            reasons[name] = "ran, but DVC recorded nothing (hint: `pulmo doctor` says whether the clone is shallow)"
    if reasons:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UserError(
            f"{len(reasons)} of {len(tasks)} experiments failed: {listed}",
            "cure that and queue them again with `dvc exp run --queue`",
        )


def _read_log(project: Project, task: str) -> str:
    try:
        return project.dvc.run("queue", "logs", task)
    except UserError:  # it failed before it had a log
        return ""


def _lives(project: Project, task: str) -> bool:
    """True where the process that DVC started for a task runs. While a task is being set up, DVC names none."""
    for file in (project.root / ".dvc" / "tmp" / "exps" / "run").glob(f"{task}*/*.json"):
        return process_lives(int(json.loads(file.read_text(encoding="utf-8"))["pid"]), file.stat().st_mtime)
    return False
