"""One story in two places: every experiment that DVC has gets its run, every run that a kill left open its end."""

import csv
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pulmo import paths, tracking
from pulmo.experiments import Experiment, read_experiments
from pulmo.revisions import read_output

_TEXTS = (paths.EVALUATION, paths.PREDICTIONS, paths.LEAKAGE, paths.CARD, paths.CARD_HTML)

_PAUSE = 600  # seconds that DVC may take between two stages; what is killed may be Running for ever in its eyes


def sync_store(root: Path, older_than: float | None = None) -> Iterator[str]:
    """Repair the store of the project at `root`, telling each change in a line; a second time there is none.

    Closes what is surely dead as KILLED (`older_than`: see tracking.list_left_open), then adds the runs of finished and
    failed experiments that have none. Runs of experiments that were removed from DVC stay.
    """
    experiments = read_experiments(root)
    gone, unknown = tracking.list_left_open(root, older_than)
    for run in gone:
        tracking.close_run(root, run)
        yield f"closed as KILLED   {run.info.run_name}  (its process is gone)"
    for run in unknown:
        where = run.data.tags.get(tracking.HOST, "a machine that left no name")
        yield f"left as RUNNING    {run.info.run_name}  (started on {where}; `--older-than HOURS` closes it)"
    recorded = tracking.find_experiment_runs(root)
    states = {(experiment.name, experiment.baseline): experiment.state for experiment in experiments}
    for key, runs in recorded.items():
        for run in runs:
            if run.info.status == "FINISHED" and not _is_whole(run) and _broke_off(run, states.get(key), older_than):
                status = "FAILED" if states.get(key) == "Failed" else "KILLED"
                tracking.close_run(root, run, status)
                yield f"closed as {status:8} {run.info.run_name}  (its process is gone, and it was not evaluated)"
    for experiment in experiments:
        evaluated, runs = experiment.state == "Success", recorded.get((experiment.name, experiment.baseline), [])
        if (
            experiment.state not in ("Success", "Failed")
            or any(_is_whole(run) for run in runs)
            or (runs and not evaluated)
        ):
            continue
        held = _add(root, experiment, evaluated)
        yield f"added              {experiment.name}  ({experiment.state.lower()}; {held})"


def _is_whole(run: Any) -> bool:
    return tracking.EVALUATED in run.data.tags


def _broke_off(run: Any, state: str | None, older_than: float | None) -> bool:
    """Whether a run that train ended well is one that evaluate will not go on in: it broke first, or never began."""
    between_stages = state == "Running" and time.time() - run.info.end_time / 1000 < _PAUSE
    return state != "Unfinished" and not between_stages and bool(tracking.is_gone(run, older_than))


def _add(root: Path, experiment: Experiment, evaluated: bool) -> str:
    read = _reader(root, experiment.revision) if evaluated else lambda path: None
    texts = {path.name: text for path in _TEXTS if (text := read(path)) is not None}
    history = [
        {key: float(value) for key, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(read(paths.HISTORY) or ""))
    ]
    report = json.loads(texts.get(paths.EVALUATION.name, "{}"))
    tags = {
        tracking.EXPERIMENT_TAG: experiment.name,
        "dvc.baseline": experiment.baseline,
        "git.revision": experiment.baseline,
        "mlflow.source.git.commit": experiment.baseline,
        "mlflow.user": tracking.run_git(root, "log", "-1", "--format=%an", experiment.revision) or "unknown",
        "pulmo.backfilled": date.today().isoformat(),
        "pulmo.error": experiment.error,
        "data_sha256": json.loads(read(paths.PACKAGE / "model.json") or "{}").get("data_sha256"),
        "train_run_id": json.loads(read(paths.MLFLOW_RUN) or "{}").get("run_id"),
    }
    with tempfile.TemporaryDirectory() as temporary:
        package = _fetch_package(root, experiment.revision, Path(temporary) / "package") if evaluated else None
        tracking.add_run(
            root,
            experiment.name,
            created=datetime.fromisoformat(experiment.created).timestamp(),
            evaluated=evaluated,
            params=experiment.params,
            tags={key: value for key, value in tags.items() if value},
            metrics={**_bounds(report, experiment.metrics), **experiment.metrics},
            history=history,
            texts=texts,
            package=package,
        )
    held = f"{len(history)} epochs, {len(experiment.metrics)} metrics, {len(texts)} files"
    return f"{held}, {'the' if package else 'no'} model"


def _reader(root: Path, revision: str) -> Callable[[Path], str | None]:
    def read(path: Path) -> str | None:
        try:
            return read_output(root, str(path), revision)
        except ValueError:  # in no cache at hand
            return None

    return read


def _fetch_package(root: Path, revision: str, target: Path) -> Path | None:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        DVCFileSystem(str(root), rev=revision).get(str(paths.PACKAGE), str(target), recursive=True)
    except (DvcException, OSError):  # in no cache at hand
        return None
    return target


def _bounds(report: dict[str, Any], metrics: dict[str, float]) -> dict[str, float | None]:
    """The interval of each metric, as evaluate tracks it: test.auroc.low and test.auroc.high."""
    found: dict[str, float | None] = {}
    for key in metrics:
        split, _, name = key.partition(".")
        estimate = report.get(split, {}).get("metrics", {}).get(name, {})
        found |= {f"{key}.{bound}": estimate.get(bound) for bound in ("low", "high")}
    return found
