"""The experiments that DVC knows: of every baseline, the queued, running and failed ones included."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pulmo.base import paths
from pulmo.base.git import run_git
from pulmo.base.params_file import flatten
from pulmo.base.yaml import read_yaml
from pulmo.experiments.dvc import WORKSPACE, failure_reason
from pulmo.experiments.project import Project
from pulmo.experiments.workspace import equals, has_own_results, output_hashes, read_stages

_HAVE_RESULTS = ("Success", "Commit", "Workspace")


@dataclass(frozen=True)
class Experiment:
    """One experiment; its name is unique among those of its baseline only."""

    name: str
    revision: str  # commit that holds it; of a queued or failed one the stash entry
    baseline: str  # full hash of the commit it varies
    created: str  # ISO 8601, local time; empty while DVC does not tell
    state: str  # Success | Unfinished (some stages ran) | Failed | Queued | Running | Commit | Workspace
    params: dict[str, Any]  # flat, such as train.lr
    metrics: dict[str, float]  # flat, such as test.auroc
    error: str | None  # what went wrong, in one line
    data: str = ""  # hash of the films and of their splits; empty where dvc.lock names none


def read_experiments(project: Project, commits: bool = False) -> list[Experiment]:
    """Every experiment of a project, in DVC's order; UserError where DVC cannot tell.

    With `commits`, also the branch tips that they start from, in the state Commit, and before them all the workspace
    where its results are neither those of HEAD nor of one of the experiments. Asks for the baselines that have
    experiments: `dvc exp show --all-commits` reads every commit there is, and still misses experiments that came from a
    colleague without the branch they vary.
    """
    revisions = [argument for baseline in _find_baselines(project.root) for argument in ("--rev", baseline)]
    shown = json.loads(project.dvc.run("exp", "show", "--json", *revisions))
    by_name: dict[tuple[str, str], Experiment] = {}
    for baseline in shown:
        if commits and baseline["name"] and baseline["rev"] != WORKSPACE:
            tip = {"name": baseline["name"], "revs": [baseline], "executor": {"state": "commit"}}
            by_name[baseline["rev"], ""] = _read_entry(project.root, tip, baseline["rev"])
        for entry in baseline["experiments"] or []:
            experiment = _read_entry(project.root, entry, baseline["rev"])
            # A running experiment is listed twice when an earlier one of its name is being replaced: the first is it.
            by_name.setdefault((experiment.baseline, experiment.name), experiment)
    listed = list(by_name.values())
    if commits and has_own_results(project.root):
        ended = [experiment.revision for experiment in listed if experiment.state == "Success"]
        if not any(equals(project.root, revision) for revision in ended):
            return [_read_workspace(project.root, shown), *listed]
    return listed


def _read_workspace(root: Path, shown: list[dict[str, Any]]) -> Experiment:
    (entry,) = [baseline for baseline in shown if baseline["rev"] == WORKSPACE]
    tip = {"name": WORKSPACE, "revs": [entry], "executor": {"state": "workspace"}}
    experiment = _read_entry(root, tip, run_git(root, "rev-parse", "HEAD"))
    if not _is_whole(read_stages(root, WORKSPACE), experiment.params):
        return replace(experiment, state="Unfinished", metrics={}, error="`dvc repro` has not run to its end")
    return replace(experiment, created=_results_time(root))


def read_results(project: Project) -> Experiment | None:
    """The results in the workspace, HEAD's or newer ones, under the name that `dvc repro` gives their run; None where
    they are not those of a whole pipeline, or are neither on this disk nor in the cache."""
    root, stages = project.root, read_stages(project.root, WORKSPACE)
    if not stages:
        return None
    evaluation, metrics, package = (
        project.dvc.read_cached(path, WORKSPACE)
        for path in (paths.EVALUATION, paths.METRICS, paths.PACKAGE / "model.json")
    )
    if not (evaluation and metrics):
        return None
    digest = hashlib.md5(evaluation.encode(), usedforsecurity=False).hexdigest()  # as DVC knows a file
    params = flatten(read_yaml(root / paths.PARAMS))
    if output_hashes(stages).get(str(paths.EVALUATION)) != digest or not _is_whole(stages, params):
        return None
    revision = json.loads(package)["git_revision"] if package else run_git(root, "rev-parse", "HEAD")
    return Experiment(
        name=f"repro-{revision[:7]}",
        revision=WORKSPACE,
        baseline=revision,
        created=_results_time(root),
        state="Success",
        params=params,
        metrics=flatten(json.loads(metrics)),
        error=None,
        data=_hash_data(stages),
    )


def _results_time(root: Path) -> str:
    """The time at which the metrics in the workspace were written, in ISO 8601. DVC tells none."""
    return datetime.fromtimestamp((root / paths.METRICS).stat().st_mtime).isoformat()


def _find_baselines(root: Path) -> list[str]:
    """HEAD and every commit that an experiment, finished, queued or failed, starts from."""
    refs = run_git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    commits = [f"{match[1]}{match[2]}" for ref in refs if (match := re.match(r"refs/exps/(..)/(.{38})/", ref))]
    for stash in ("refs/exps/celery/stash", "refs/exps/celery/failed"):
        if stash in refs:
            commits += re.findall(r"dvc-exp:\w+:(\w+):", run_git(root, "log", "--walk-reflogs", "--format=%gs", stash))
    known = [commit for commit in dict.fromkeys(commits) if run_git(root, "cat-file", "-t", commit)]
    return ["HEAD", *known]


def _read_entry(root: Path, entry: dict[str, Any], baseline: str) -> Experiment:
    tip, executor = entry["revs"][0], entry["executor"] or {}
    data = tip["data"] or {}
    log = (executor.get("local") or {}).get("log")
    state = (executor.get("state") or "success").capitalize()
    error = (tip["error"] or {}).get("msg")
    if state == "Failed" and log and Path(log).is_file():
        error = failure_reason(Path(log).read_text(encoding="utf-8", errors="replace"))
    params = _flat(data.get("params"))
    stages = read_stages(root, tip["rev"]) if state in _HAVE_RESULTS else []
    if state == "Success" and not (data.get("metrics") and _is_whole(stages, params)):
        state, error = "Unfinished", "only a part of the stages ran"
    # The metrics file that git carries is there, unchanged, in what has not come to its end: those are not its own.
    metrics = _flat(data.get("metrics")) if state in _HAVE_RESULTS else {}
    return Experiment(
        name=entry["name"] or tip["name"] or tip["rev"][:7],
        revision=tip["rev"],
        baseline=baseline,
        created=data.get("timestamp") or "",
        state=state,
        params=params,
        metrics={key: float(value) for key, value in metrics.items() if isinstance(value, int | float)},
        error=error,
        data=_hash_data(stages),
    )


def hash_films(root: Path, revision: str) -> str:
    """DVC's hash of the table of films at a commit, in which their content is; empty where dvc.lock names none."""
    return output_hashes(read_stages(root, revision)).get(str(paths.FILMS), "")


def _hash_data(stages: Sequence[Mapping[str, Any]]) -> str:
    """Hash of what is validated and tested on: the films, by their content, and the split that each is in."""
    hashes = output_hashes(stages)
    both = "".join(hashes.get(str(path), "") for path in (paths.FILMS, paths.SPLITS))
    return hashlib.sha256(both.encode()).hexdigest() if both else ""


def _is_whole(stages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> bool:
    """True where each stage of an experiment ran with its params and on what the stages before it left.

    `dvc exp run train` leaves evaluate, and thereby the metrics, as they were in the baseline; its dvc.lock tells.
    """
    left = output_hashes(stages)
    return bool(stages) and all(
        all(left.get(dep["path"], dep.get("md5")) == dep.get("md5") for dep in stage.get("deps", []))
        and _flat({file: {"data": used} for file, used in stage.get("params", {}).items()}).items() <= params.items()
        for stage in stages
    )


def _flat(files: dict[str, Any] | None) -> dict[str, Any]:
    """Contents of all files of a kind, flat; a file that the revision lacks holds nothing."""
    return {key: value for file in (files or {}).values() for key, value in flatten(file.get("data") or {}).items()}
