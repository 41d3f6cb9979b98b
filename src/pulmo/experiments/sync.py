"""One story in two places: every experiment that DVC has gets its run, every run that a kill left open its end."""

import csv
import io
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.base.git import run_git
from pulmo.experiments.dvc import WORKSPACE
from pulmo.experiments.listing import Experiment, read_experiments, read_results
from pulmo.experiments.project import Project
from pulmo.reporting.card import in_short
from pulmo.tracking.runs import EVALUATED, EXPERIMENT_TAG, HOST
from pulmo.tracking.store import Store
from pulmo.tracking.upkeep import (
    REPLACED,
    Record,
    add_run,
    close_run,
    complete_run,
    find_broken,
    find_evaluations,
    find_experiment_runs,
    is_from_here,
    is_gone,
    list_left_open,
    mark_replaced,
    move_artifacts,
)

_TEXTS = (paths.EVALUATION, paths.PREDICTIONS, paths.LEAKAGE, paths.CARD, paths.CARD_HTML)
_PAUSE = 600  # seconds that DVC may take between two stages; what is killed may be Running for ever in its eyes


def sync_store(project: Project, older_than: float | None = None) -> Iterator[str]:
    """Repair the store of a project, telling each change in a line; a second time there is none.

    Finds the artifacts of a checkout that was moved (move_artifacts), completes the runs that a store did not take and
    adds those of finished and failed experiments, and of the results in the workspace, that have none; then closes what
    is surely dead as KILLED (`older_than`: see list_left_open).
    Runs of experiments that were removed from DVC stay; those of an experiment that another one of its name replaced
    (`dvc exp run -f`), and the earlier ones of an evaluation that was made twice, are marked.
    """
    experiments = read_experiments(project)
    states = {(experiment.name, experiment.baseline): experiment.state for experiment in experiments}
    with FileLock(project.root / ".dvc/tmp/pulmo-sync.lock"):  # two at once would both add what is missing
        if moved := move_artifacts(project.store):
            yield f"corrected          {moved} addresses of artifacts, which led to where this checkout was before"
        recorded = find_experiment_runs(project.store)
        for experiment in experiments:
            runs = recorded.get((experiment.name, experiment.baseline), [])
            if experiment.state == "Success":
                whole = [run for run in runs if EVALUATED in run.data.tags]
                runs = _drop_twins([run for run in whole if _agrees(run, experiment)])
                yield from _mark_replaced(project.store, whole, runs)
            if not runs and experiment.state in ("Success", "Failed"):
                yield _add(project, experiment)
        if results := read_results(project):
            if not _find_runs(project):
                yield _add(project, results)
            yield from _mark_repeated(project)
        yield from _close_dead(project.store, states, older_than)


def list_without_run(project: Project, experiments: Sequence[Experiment]) -> list[str]:
    """Names of the finished experiments, and `workspace`, that have no run, as DVC leaves what it takes from its cache.

    The results of a commit that is checked out are those of the workspace.
    """
    recorded = find_experiment_runs(project.store) if project.has_store else {}
    names = sorted(
        experiment.name
        for experiment in experiments
        if experiment.state == "Success"
        and not any(_agrees(run, experiment) for run in recorded.get((experiment.name, experiment.baseline), []))
    )
    results = read_results(project)
    return [*names, WORKSPACE] if results and not (project.has_store and _find_runs(project)) else names


def _find_runs(project: Project) -> list[Any]:
    """The runs that hold the results in the workspace, of an experiment or a commit, the last one first."""
    return find_evaluations(project.store, project.dvc.read(paths.EVALUATION, WORKSPACE))


def _mark_repeated(project: Project) -> Iterator[str]:
    """Mark the earlier runs of results that a plain `dvc repro` came to twice."""
    plain = [run for run in _find_runs(project) if not run.data.tags.get(EXPERIMENT_TAG)]
    for name in sorted({run.info.run_name for run in plain}):
        runs = [run for run in plain if run.info.run_name == name]
        yield from _mark_replaced(project.store, runs, _drop_twins(runs))


def _close_dead(store: Store, states: dict[tuple[str, str], str], older_than: float | None) -> Iterator[str]:
    """End the runs that a kill left open, and those that train ended well but no evaluate will go on in."""
    gone, unknown = list_left_open(store, older_than)
    for run in gone:
        close_run(store, run)
        yield f"closed as KILLED   {run.info.run_name}  (its process is gone)"
    for run in unknown:
        where = run.data.tags.get(HOST, "a machine that left no name")
        yield f"left as RUNNING    {run.info.run_name}  (started on {where}; `--older-than HOURS` closes it)"
    for key, runs in find_experiment_runs(store).items():
        state = states.get(key)
        for run in runs:
            if run.info.status != "FINISHED" or EVALUATED in run.data.tags or state == "Unfinished":
                continue
            between_stages = state == "Running" and time.time() - run.info.end_time / 1000 < _PAUSE
            if not between_stages and is_gone(run, older_than):
                status = "FAILED" if state == "Failed" else "KILLED"
                close_run(store, run, status)
                yield f"closed as {status}   {run.info.run_name}  (its process is gone, and it was not evaluated)"


def _mark_replaced(store: Store, runs: list[Any], own: list[Any]) -> Iterator[str]:
    """Mark those `runs` of an experiment that are not its `own`, and those alone."""
    for run in runs:
        marked = REPLACED in run.data.tags
        # Not another machine's: a store that is shared may hold a colleague's experiment of that name.
        if is_from_here(run) and (run in own) == marked:
            mark_replaced(store, run, not marked)
            change = "is its own again" if marked else "replaced"
            yield f"{change:18} {run.info.run_name}  (run {run.info.run_id})"


def _agrees(run: Any, experiment: Experiment) -> bool:
    """True where a run is the whole one of the experiment as it is now, not of one that `dvc exp run -f` replaced."""
    metrics = run.data.metrics
    return EVALUATED in run.data.tags and all(
        math.isclose(metrics.get(key, math.nan), value) for key, value in experiment.metrics.items()
    )


def _drop_twins(runs: list[Any]) -> list[Any]:
    """The runs, the last one first, less the older ones of this machine: an evaluate that is killed once its run has
    ended, but before DVC knows, is run again and leaves two."""
    older = [run for run in runs if is_from_here(run)][1:]
    return [run for run in runs if run not in older]


def _add(project: Project, experiment: Experiment) -> str:
    """Give an experiment its run, or complete the one of which the store took a part; returns a line that says so."""
    with tempfile.TemporaryDirectory() as temporary:
        target, evaluated = Path(temporary) / "package", experiment.state == "Success"
        try:
            package = project.dvc.copy_folder(paths.PACKAGE, experiment.revision, target) if evaluated else None
        except UserError:
            pulls = "" if experiment.revision == WORKSPACE else f"`dvc exp pull REMOTE {experiment.name}` or "
            cure = f"{pulls}`dvc pull` brings it"
            return f"left out           {experiment.name}  (its model is not in the cache; {cure})"
        record = _read_record(project, experiment, package)
        if broken := find_broken(project.store, record):
            complete_run(project.store, broken, record)
        else:
            add_run(project.store, record)
    files = f"{len(record.texts)} files, {'the' if package else 'no'} model"
    content = f"{len(record.history)} epochs, {len(experiment.metrics)} metrics, {files}"
    change = "completed" if broken else "added"
    return f"{change:18} {experiment.name}  ({experiment.state.lower()}; {content})"


def _read_record(project: Project, experiment: Experiment, package: Path | None) -> Record:
    """All that DVC holds of an experiment; of one that was not evaluated its params and its error."""
    evaluated = experiment.state == "Success"
    files = {*_TEXTS, paths.HISTORY, paths.PACKAGE / "model.json", paths.MLFLOW_RUN}
    here = experiment.revision == WORKSPACE
    author = ("config", "user.name") if here else ("log", "-1", "--format=%an", experiment.revision)
    read = {path: project.dvc.read_cached(path, experiment.revision) if evaluated else None for path in files}
    history = csv.DictReader(io.StringIO(read[paths.HISTORY] or ""))
    info = json.loads(read[paths.PACKAGE / "model.json"] or "{}")
    tags = {
        EXPERIMENT_TAG: "" if here else experiment.name,
        "dvc.baseline": experiment.baseline,
        "git.revision": experiment.baseline,
        "mlflow.source.git.commit": experiment.baseline,
        "mlflow.user": run_git(project.root, *author) or "unknown",
        "pulmo.backfilled": date.today().isoformat(),
        "pulmo.error": experiment.error,
        "data_sha256": info.get("data_sha256"),
        "env.device": info.get("training", {}).get("device"),
        "env.precision": info.get("training", {}).get("precision"),
        "train_run_id": json.loads(read[paths.MLFLOW_RUN] or "{}").get("run_id"),
    }
    return Record(
        name=experiment.name,
        created=datetime.fromisoformat(experiment.created).timestamp(),
        evaluated=evaluated,
        params=experiment.params,
        tags={key: value for key, value in tags.items() if value},
        metrics=experiment.metrics,
        history=[{key: float(value) for key, value in row.items() if value} for row in history],
        texts={path.name: text for path in _TEXTS if (text := read[path]) is not None},
        summary=in_short(read[paths.CARD] or "") or experiment.error or "",
        package=package,
    )
