"""The experiments that DVC knows: of every baseline, the queued, running and failed ones included."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.base.params import flatten
from pulmo.experiments.dvc import failure_reason, run_dvc

SHOWN = ("val.auroc", "test.auroc", "test.accuracy", "test.sensitivity", "test.specificity", "test.f1")
_SHORT = {"auroc_rendered": "rend", "accuracy": "acc", "sensitivity": "sens", "specificity": "spec"}


@dataclass(frozen=True)
class Experiment:
    """One experiment; its name is unique among those of its baseline only."""

    name: str
    revision: str  # commit that holds it; of a queued or failed one the stash entry
    baseline: str  # full hash of the commit it varies
    created: str  # ISO 8601, local time; empty while DVC does not tell
    state: str  # Success | Unfinished (some stages ran) | Failed | Queued | Running | Commit
    params: dict[str, Any]  # flat, such as train.lr
    metrics: dict[str, float]  # flat, such as test.auroc
    error: str | None  # what went wrong, in one line


def read_experiments(root: Path, commits: bool = False) -> list[Experiment]:
    """Every experiment of the repository at `root`, in DVC's order; UserError where DVC cannot tell.

    With `commits`, also the branch tips that they start from, in the state Commit. Asks for the baselines that have
    experiments: `dvc exp show --all-commits` reads every commit there is, and still misses experiments that came from a
    colleague without the branch they vary.
    """
    revisions = [argument for baseline in find_baselines(root) for argument in ("--rev", baseline)]
    shown = json.loads(run_dvc(root, "exp", "show", "--json", *revisions))
    found: dict[tuple[str, str], Experiment] = {}
    for baseline in shown:
        if commits and baseline["name"] and baseline["rev"] != "workspace":
            tip = {"name": baseline["name"], "revs": [baseline], "executor": {"state": "commit"}}
            found[baseline["rev"], ""] = _read_entry(root, tip, baseline["rev"])
        for entry in baseline["experiments"] or []:
            experiment = _read_entry(root, entry, baseline["rev"])
            # A running experiment is told twice when an earlier one of its name is being replaced: the first is it.
            found.setdefault((experiment.baseline, experiment.name), experiment)
    return list(found.values())


def format_experiments(
    experiments: Sequence[Experiment], sort: str = SHOWN[0], width: int = 100, now: datetime | None = None
) -> str:
    """A table at most `width` (60 or more) wide: best first by the metric `sort`, then what has none and why.

    Long names stand on a line of their own, and metrics that a narrow table cannot hold are left out. Rows name the
    params in which they differ from the first commit among them, or else from what most of them have; those values
    stand below the table.
    """
    metrics = (*SHOWN, *({sort} - set(SHOWN)))
    known = {key for experiment in experiments for key in experiment.metrics}
    if known and sort not in known:
        raise UserError(f"no experiment has the metric {sort}", f"there are {', '.join(sorted(known))}")
    reference = next((experiment for experiment in experiments if experiment.state == "Commit"), None)
    usual, changed = _differences(experiments, reference)
    names = [experiment.name for experiment in experiments]
    labels = [
        f"{experiment.name} ({experiment.baseline[:7]})" if names.count(experiment.name) > 1 else experiment.name
        for experiment in experiments
    ]
    wide = min(max(map(len, [*labels, "experiment"])), max(width - 74, 12))
    fitting = metrics[: max((width - wide - 24) // 7, 1)]
    metrics = fitting if sort in fitting else (*fitting[:-1], sort)
    heads = [key.split(".", 1) for key in metrics]
    lines = [
        f"{'':{wide}}      " + "".join(f"{split:>7}" for split, _ in heads),
        f"{'experiment':{wide}}   age" + "".join(f"{_SHORT.get(name, name):>7}" for _, name in heads) + "  differs in",
    ]
    order = sorted(range(len(names)), key=lambda row: -experiments[row].metrics.get(sort, float("-inf")))
    for row in order:
        experiment = experiments[row]
        lines += [labels[row]] if (long := len(labels[row]) > wide) else []
        start = f"{'' if long else labels[row]:{wide}}  {_age(experiment.created, now or datetime.now()):>4}"
        if experiment.metrics:
            cells = [experiment.metrics.get(key) for key in metrics]
            start += "".join(f"{'–':>7}" if value is None else f"{value:7.3f}" for value in cells) + "  "
            told = changed[row]
        else:
            told = f"{experiment.state.lower()}: {experiment.error}" if experiment.error else experiment.state.lower()
            start, told = f"{start}  ", " ".join([told, *([f"[{changed[row]}]"] if changed[row] else [])])
        room = max(width - len(start), 16)
        parts = textwrap.wrap(told, room, break_on_hyphens=False) or [""]
        lines += [start + parts[0], *(" " * len(start) + part for part in parts[1:])]
    if usual:
        told = f"{reference.name if reference else 'the others'}: {usual}"
        lines += ["", *textwrap.wrap(told, width, break_on_hyphens=False)]
    return "\n".join(line.rstrip() for line in lines)


def find_baselines(root: Path) -> list[str]:
    """HEAD and every commit that an experiment, finished, queued or failed, starts from."""
    refs = run_git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    told = [f"{match[1]}{match[2]}" for ref in refs if (match := re.match(r"refs/exps/(..)/(.{38})/", ref))]
    for stash in ("refs/exps/celery/stash", "refs/exps/celery/failed"):
        if stash in refs:
            told += re.findall(r"dvc-exp:\w+:(\w+):", run_git(root, "log", "--walk-reflogs", "--format=%gs", stash))
    known = [commit for commit in dict.fromkeys(told) if run_git(root, "cat-file", "-t", commit)]
    return ["HEAD", *known]


def _differences(experiments: Sequence[Experiment], reference: Experiment | None) -> tuple[str, list[str]]:
    """Reference or most common value of each param that is not the same everywhere, and what each has instead."""
    values = {
        key: [str(experiment.params.get(key, "–")) for experiment in experiments]
        for key in sorted({key for experiment in experiments for key in experiment.params})
    }
    differing = {key: column for key, column in values.items() if len(set(column)) > 1}
    common = {key: Counter(column).most_common(1)[0][0] for key, column in differing.items()}
    usual = {key: str(reference.params.get(key, "–")) if reference else common[key] for key in differing}
    ends = [key.rpartition(".")[2] for key in differing]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(differing, ends, strict=True)}
    own = [
        " ".join(f"{short[key]}={column[row]}" for key, column in differing.items() if column[row] != usual[key])
        for row in range(len(experiments))
    ]
    return " ".join(f"{key}={value}" for key, value in usual.items()), own


def _age(created: str, now: datetime) -> str:
    if not created:
        return ""
    minutes = max(0.0, (now - datetime.fromisoformat(created)).total_seconds() / 60)
    for unit, size, limit in (("m", 1, 60), ("h", 60, 48 * 60), ("d", 24 * 60, float("inf"))):
        if minutes < limit:
            return f"{minutes / size:.0f}{unit}"
    return ""


def _read_entry(root: Path, entry: dict[str, Any], baseline: str) -> Experiment:
    tip, executor = entry["revs"][0], entry["executor"] or {}
    data = tip["data"] or {}
    log = (executor.get("local") or {}).get("log")
    state = (executor.get("state") or "success").capitalize()
    error = (tip["error"] or {}).get("msg")
    if state == "Failed" and log and Path(log).is_file():
        error = failure_reason(Path(log).read_text(encoding="utf-8", errors="replace"))
    params = _flat(data.get("params"))
    if state == "Success" and not (data.get("metrics") and _is_whole(root, tip["rev"], params)):
        state, error = "Unfinished", "only a part of the stages ran"
    # The metrics file that git carries is there, unchanged, in what has not come to its end: those are not its own.
    metrics = _flat(data.get("metrics")) if state in ("Success", "Commit") else {}
    return Experiment(
        name=entry["name"] or tip["name"] or tip["rev"][:7],
        revision=tip["rev"],
        baseline=baseline,
        created=data.get("timestamp") or "",
        state=state,
        params=params,
        metrics={key: float(value) for key, value in metrics.items() if isinstance(value, int | float)},
        error=error,
    )


def _is_whole(root: Path, revision: str, params: Mapping[str, Any]) -> bool:
    """Whether each stage of an experiment ran with its params and on what the stages before it left.

    `dvc exp run train` leaves evaluate, and thereby the metrics, as they were in the baseline; its dvc.lock tells.
    """
    from dvc.utils.serialize import parse_yaml

    lock = parse_yaml(run_git(root, "show", f"{revision}:./dvc.lock"), "dvc.lock") or {}
    stages = lock.get("stages", {}).values()
    left = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", [])}
    return bool(stages) and all(
        all(left.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in stage.get("deps", []))
        and _flat({file: {"data": used} for file, used in stage.get("params", {}).items()}).items() <= params.items()
        for stage in stages
    )


def _flat(files: dict[str, Any] | None) -> dict[str, Any]:
    """Contents of all files of a kind, flat; a file that the revision lacks holds nothing."""
    return {key: value for file in (files or {}).values() for key, value in flatten(file.get("data") or {}).items()}
