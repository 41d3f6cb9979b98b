"""The run of an experiment: who opens it, who goes on in it, and how it ends."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulmo.tracking.store import EXPERIMENT, find_run, flatten, git_state, load_mlflow, open_store, run_git

_EVALUATED = "pulmo.evaluated"
_EXPERIMENT_TAG = "dvc.experiment"


class Run:
    """An open run; every method writes to the store at once, so that `mlflow ui` shows a run that is under way."""

    def __init__(self, client: Any, run_id: str, name: str) -> None:
        self.client = client
        self.run_id = run_id
        self.name = name

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """One row of the history: every number but `epoch` becomes a point of its curve at that epoch."""
        self.log_metrics({key: value for key, value in row.items() if key != "epoch"}, step=int(row["epoch"]))

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Numbers under the names given, in one call to the store; None (undefined) is left out."""
        entity = load_mlflow().entities.Metric
        stamp = _now()
        points = [entity(key, float(value), stamp, step) for key, value in metrics.items() if value is not None]
        self.client.log_batch(self.run_id, metrics=points)

    def log_path(self, path: Path, folder: str | None = None) -> None:
        """A file, or a folder with all it holds, as artifact."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tags that people filter and sort by."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, str(value))


@contextmanager
def train_run(
    root: Path, params: Mapping[str, Any], tags: Mapping[str, object], resumed_id: str | None = None
) -> Iterator[Run]:
    """The run of this experiment, for train; the one that a killed training left open where `resumed_id` names it."""
    client = open_store(root)
    run = find_run(client, resumed_id) if resumed_id else None
    if run and run.data.tags.get(_EXPERIMENT_TAG) == _experiment_name():
        run_id, name = run.info.run_id, run.info.run_name
        client.update_run(run_id, status="RUNNING")
    else:
        run_id, name = _create_run(client, root, params, tags)
    with _ending(client, run_id):
        yield Run(client, run_id, name)


@contextmanager
def evaluate_run(
    root: Path,
    trained_in: str,
    params: Mapping[str, Any],
    tags: Mapping[str, object],
    history: list[dict[str, float]],
) -> Iterator[Run]:
    """The run of this experiment, for evaluate: train's where it is ours and not yet evaluated, else a new whole one.

    `trained_in` is the run id that train left; `history` the epochs that a new run copies.
    """
    client = open_store(root)
    trained = find_run(client, trained_in)
    ours = trained is not None and trained.data.tags.get(_EXPERIMENT_TAG) == _experiment_name()
    if trained is not None and ours and _EVALUATED not in trained.data.tags:
        run_id, name = trained_in, trained.info.run_name
        client.update_run(run_id, status="RUNNING")
    else:
        run_id, name = _create_run(client, root, params, {**tags, "train_run_id": trained_in})
        for row in history:
            Run(client, run_id, name).log_epoch(row)
    with _ending(client, run_id):
        yield Run(client, run_id, name)
        client.set_tag(run_id, _EVALUATED, "true")


def _create_run(client: Any, root: Path, params: Mapping[str, Any], tags: Mapping[str, object]) -> tuple[str, str]:
    mlflow = load_mlflow()
    revision, dirty = git_state(Path.cwd())
    own = {
        "mlflow.source.git.commit": revision,
        "mlflow.source.name": "dvc",
        "mlflow.user": run_git(root, "config", "user.name").strip() or "unknown",
        "git.revision": revision,
        "git.dirty": dirty,
        _EXPERIMENT_TAG: _experiment_name(),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV") or revision,
    }
    name = _experiment_name() or f"repro-{revision[:7]}"
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    run = client.create_run(experiment, run_name=name, tags={key: str(value) for key, value in {**own, **tags}.items()})
    client.log_batch(
        run.info.run_id, params=[mlflow.entities.Param(key, str(value)) for key, value in flatten(params).items()]
    )
    return run.info.run_id, name


@contextmanager
def _ending(client: Any, run_id: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        client.set_terminated(run_id, "FAILED")
        raise
    except BaseException:
        client.set_terminated(run_id, "KILLED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _experiment_name() -> str:
    return os.environ.get("DVC_EXP_NAME", "")


def _now() -> int:
    return int(load_mlflow().utils.time.get_current_time_millis())
