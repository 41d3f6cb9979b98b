"""MLflow behind one door: where runs are stored, what they are called, and which run a stage belongs to.

One experiment of DVC is one run. `train` opens it and leaves its id in reports/mlflow_run.json; `evaluate` goes on in
that run only while it belongs to the present experiment and is not yet evaluated. Otherwise DVC took train from its
cache, and evaluate opens a run of its own, complete with parameters and the training history.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

EXPERIMENT = "pulmo"
_EVALUATED = "pulmo.evaluated"
_EXPERIMENT_TAG = "dvc.experiment"
_DVC_WRITES = {"dvc.lock", "params.yaml", "reports/metrics.json"}


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
        entity = _mlflow().entities.Metric
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


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the sqlite store at the project root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


@contextmanager
def train_run(
    root: Path, params: Mapping[str, Any], tags: Mapping[str, object], resumed_id: str | None = None
) -> Iterator[Run]:
    """The run of this experiment, for train; the one that a killed training left open where `resumed_id` names it."""
    client = _open_store(root)
    run = _find(client, resumed_id) if resumed_id else None
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
    client = _open_store(root)
    trained = _find(client, trained_in)
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


def read_artifact(root: Path, run: str, file: str) -> str | None:
    """Text of a file at the top level of a run's artifacts, the run given by name or id; None where there is none."""
    client = _open_store(root)
    found = _find(client, run)
    if found is None:
        name = run.replace("'", "")
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        named = client.search_runs([experiment], f"attributes.run_name = '{name}'", max_results=1)
        found = named[0] if named else None
    if found is None or file not in [item.path for item in client.list_artifacts(found.info.run_id)]:
        return None
    return Path(client.download_artifacts(found.info.run_id, file)).read_text(encoding="utf-8")


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} as {"train.lr": 1}, the names that DVC shows too."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def git_state(folder: Path) -> tuple[str, bool]:
    """Commit hash and whether tracked files differ from it; what DVC itself rewrites aside."""
    head = _git(folder, "rev-parse", "HEAD").strip()
    changed = {line[3:].strip('"') for line in _git(folder, "status", "--porcelain", "-uno").splitlines()}
    return head or "no commit", bool(changed - _DVC_WRITES)


def _open_store(root: Path) -> Any:
    """The client, with store and experiment in place; the lock keeps two first runs from creating them at once.

    A new sqlite file is made under a temporary name: one whose tables a kill left half-made could not be opened again.
    """
    mlflow = _mlflow()
    uri = store_uri(root)
    file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    with FileLock(root / ".mlflow.lock"):
        try:
            if file and not file.exists():
                part = file.with_name(f".{file.name}.part")
                part.unlink(missing_ok=True)
                _ensure_experiment(mlflow.MlflowClient(tracking_uri=f"sqlite:///{part}"), root)
                part.replace(file)
            client = mlflow.MlflowClient(tracking_uri=uri)
            _ensure_experiment(client, root if file else None)
        except mlflow.exceptions.MlflowException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the MLflow store {uri} cannot be used ({reason}); check MLFLOW_TRACKING_URI") from None
    return client


def _ensure_experiment(client: Any, artifacts_at: Path | None) -> None:
    # Without a location of its own, an experiment first opened by a temporary run would record a folder DVC deletes.
    if client.get_experiment_by_name(EXPERIMENT) is None:
        client.create_experiment(EXPERIMENT, (artifacts_at / "mlartifacts").as_uri() if artifacts_at else None)


def _create_run(client: Any, root: Path, params: Mapping[str, Any], tags: Mapping[str, object]) -> tuple[str, str]:
    mlflow = _mlflow()
    revision, dirty = git_state(Path.cwd())
    own = {
        "mlflow.source.git.commit": revision,
        "mlflow.source.name": "dvc",
        "mlflow.user": _git(root, "config", "user.name").strip() or "unknown",
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


def _find(client: Any, run_id: str) -> Any | None:
    try:
        run = client.get_run(run_id)
    except _mlflow().exceptions.MlflowException:
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _experiment_name() -> str:
    return os.environ.get("DVC_EXP_NAME", "")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True).stdout


def _now() -> int:
    return int(_mlflow().utils.time.get_current_time_millis())


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow

    return mlflow
