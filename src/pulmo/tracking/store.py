"""The MLflow store: where it is, opened safely by any number of processes, and what git says of the code."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

EXPERIMENT = "pulmo"
_DVC_WRITES = {"dvc.lock", "params.yaml", "reports/metrics.json"}


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the sqlite store at the project root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def open_store(root: Path) -> Any:
    """The client, with store and experiment in place; the lock keeps two first runs from creating them at once.

    A new sqlite file is made under a temporary name: one whose tables a kill left half-made could not be opened again.
    """
    mlflow = load_mlflow()
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
            _ensure_experiment(client, None if uri.startswith("http") else root)  # a server chooses its own place
        except mlflow.exceptions.MlflowException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the MLflow store {uri} cannot be used ({reason}); check MLFLOW_TRACKING_URI") from None
    return client


def find_run(client: Any, run_id: str) -> Any | None:
    try:
        run = client.get_run(run_id)
    except load_mlflow().exceptions.MlflowException:
        return None
    return run if run.info.lifecycle_stage == "active" else None


def read_artifact(root: Path, run: str, file: str) -> str | None:
    """Text of a file at the top level of a run's artifacts, the run given by name or id; None where there is none."""
    client = open_store(root)
    found = find_run(client, run)
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
    head = run_git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = {line[3:].strip('"') for line in run_git(folder, "status", "--porcelain", "-uno").splitlines()}
    return head or "no commit", bool(changed - _DVC_WRITES)


def _ensure_experiment(client: Any, artifacts_at: Path | None) -> None:
    # Without a location of its own, an experiment first opened by a temporary run would record a folder DVC deletes.
    if client.get_experiment_by_name(EXPERIMENT) is None:
        client.create_experiment(EXPERIMENT, (artifacts_at / "mlartifacts").as_uri() if artifacts_at else None)


def run_git(folder: Path, *arguments: str) -> str:
    """What a git command prints, without the last line break; nothing where it fails."""
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True).stdout.rstrip("\n")


def load_mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow
