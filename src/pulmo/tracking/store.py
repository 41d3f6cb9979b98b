"""The MLflow store: its place, opened safely by any number of processes, and asked for runs."""

import hashlib
import logging
import os
import posixpath
import re
import shlex
import socket
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from filelock import FileLock

from pulmo.base.addresses import hide_secrets, show_address
from pulmo.base.errors import UserError

EXPERIMENT = "pulmo"
# Before the names of curves. MLflow's page gives names with a prefix a section that folds, above those without one, so
# that the course of a training stands above numbers that have none, and above the load of the machine.
EPOCH = "epoch/"
DESCRIPTION = "mlflow.note.content"  # the tag, of an experiment or a run, that the page shows as text
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Store:
    """An opened store, and the one experiment of MLflow in it that holds the runs of a project."""

    root: Path  # of the project
    uri: str
    client: Any  # MlflowClient
    experiment: str  # its id

    def find_run(self, run_id: str) -> Any | None:
        """The run of an id, unless it was deleted."""
        try:
            run = self.client.get_run(run_id)
        except load_mlflow().exceptions.MlflowException:
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def find_runs(self, condition: str = "", **options: Any) -> list[Any]:
        """All runs that are not deleted and meet MLflow's filter `condition`, the last one first."""
        runs, token = [], None
        while True:
            page = self.client.search_runs([self.experiment], condition, max_results=1000, page_token=token, **options)
            runs += page
            if not (token := page.token):
                return runs

    def read_artifact(self, run: str, file: str) -> str | None:
        """Text of a file at the top level of the artifacts of a run, given by its id, or else of the last run of that
        name that holds it; None where there is none."""
        by_id = self.find_run(run)
        for one in [by_id] if by_id else self.find_runs(f"attributes.run_name = {quote(run)}"):
            if file in [item.path for item in self.client.list_artifacts(one.info.run_id)]:
                return Path(self.client.download_artifacts(one.info.run_id, file)).read_text(encoding="utf-8")
        return None

    def read_verified(self, run_id: str, file: str) -> str | None:
        """Text of a report of the run of an id, None where it holds none; UserError where it is not the one whose hash
        evaluate left with the run."""
        run, text = self.find_run(run_id), self.read_artifact(run_id, file)
        if run is None or text is None:
            return None
        if run.data.tags.get(f"{Path(file).stem}_sha256") != hashlib.sha256(text.encode()).hexdigest():
            raise UserError(
                f"{file} of run {run.info.run_name} is not the one that was evaluated, or left no hash",
                "evaluate the experiment again: dvc exp run -f -s evaluate",
            )
        return text

    def create_run(self, name: str, tags: Mapping[str, object], start: int | None = None) -> str:
        """Id of a new run; `start` in milliseconds since 1970, else now."""
        texts = {key: str(value) for key, value in tags.items()}
        return str(self.client.create_run(self.experiment, start, texts, name).info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        """The params of a run, by their flat names."""
        entity = load_mlflow().entities.Param
        entities = [entity(key, str(value)) for key, value in clean_names(params).items()]
        self.client.log_batch(run_id, params=entities)

    def last_epoch(self, run: Any) -> int:
        """The last epoch whose numbers a run holds; 0 where it holds none."""
        if (loss := f"{EPOCH}val_loss") not in run.data.metrics:
            return 0
        return max(int(point.step) for point in self.client.get_metric_history(run.info.run_id, loss))


def clean_names(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params under names that MLflow takes, which has no brackets and the like in them."""
    return {posixpath.normpath(re.sub(r"[^\w. :/-]", "_", key)): value for key, value in params.items()}


def has_store(root: Path) -> bool:
    """True where there is a store to open: opening makes one where there is none."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (root / "mlflow.db").exists()


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the sqlite store at the project root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def is_file(uri: str) -> bool:
    """True where a store is a file of this machine."""
    return uri.startswith("sqlite:")


def server_answers(uri: str) -> bool:
    """False where a store is on a server that cannot be reached."""
    if is_file(uri):
        return True
    try:
        reach(uri)
    except OSError:
        return False
    except Exception:  # as wrong passwords make; opening the store names it
        return True
    return True


def open_store(root: Path) -> Store:
    """The store of the project at `root`, with its experiment in place. A lock keeps two first runs from making both.

    A new sqlite file is made under a temporary name: one whose tables a kill left half-made could not be opened again.
    UserError, with the cure, where the store cannot be used.
    """
    uri = store_uri(root)
    if "//" in uri and "://" not in uri:  # MLflow would make a folder of that name, password and all
        raise UserError(f"MLFLOW_TRACKING_URI={show_address(uri)} has no colon before //", "write scheme://host")
    served = uri.startswith("http")
    with checked(uri):
        mlflow = load_mlflow()
        file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        alone = served or not os.access(root, os.W_OK)  # what cannot be written to can be read all the same
        with nullcontext() if alone else FileLock(root / ".mlflow.lock"):
            if file and not file.exists():
                part = file.with_name(f".{file.name}.part")
                part.unlink(missing_ok=True)
                reach(f"sqlite:///{part}")
                _ensure_experiment(mlflow.MlflowClient(tracking_uri=f"sqlite:///{part}"), root)
                part.replace(file)
            reach(uri)
            client = mlflow.MlflowClient(tracking_uri=uri)
            experiment = _ensure_experiment(client, None if served else root)  # a server chooses its own place
    if experiment.lifecycle_stage == "deleted":
        raise _deleted(uri, experiment.experiment_id)
    return Store(root, uri, client, str(experiment.experiment_id))


@contextmanager
def checked(uri: str) -> Iterator[None]:
    """Turn every error of a store into a UserError with the cure, and keep MLflow from logging its traceback."""
    logging.disable()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every driver has errors of its own
        raise unusable(uri, error) from None
    finally:
        logging.disable(logging.NOTSET)


def _deleted(uri: str, experiment: str) -> UserError:
    where = "" if os.environ.get("MLFLOW_TRACKING_URI") else f"MLFLOW_TRACKING_URI={shlex.quote(uri)} "
    return UserError(
        f"the MLflow experiment {EXPERIMENT!r} of {show_address(uri)} was deleted, and takes no runs",
        f"`{where}mlflow experiments restore --experiment-id {experiment}` brings it back with its runs",
    )


def unusable(uri: str, error: Exception) -> UserError:
    """The error that says what is wrong with a store, and the cure."""
    reason = " ".join(str(error).split()).partition(" [SQL:")[0].partition(" (Background on")[0]
    if system := re.search(r"\[Errno -?\d+\] ([^'\")]+)", reason):  # what MLflow and its libraries wrap in their words
        reason = system[1]
    version = re.search(r"found version (\w+)", reason)
    migrations = Path(load_mlflow().__file__).parent / "store/db_migrations/versions"
    if version and list(migrations.glob(f"{version[1]}_*")):
        named = '"$MLFLOW_TRACKING_URI"' if os.environ.get("MLFLOW_TRACKING_URI") else shlex.quote(uri)
        reason, cure = "an older MLflow made it", f"mlflow db upgrade {named}"
    elif version:
        reason, cure = "a newer MLflow made it", "install that version, or a newer one"
    elif "readonly" in reason or "read-only" in reason.lower() or isinstance(error, PermissionError):
        cure = "allow writing to it and to its folder (chmod u+w)"
    elif "'active' state" in reason:
        reason, cure = "the run, or its experiment, was deleted", "`pulmo sync` makes the runs that are missing"
    elif isinstance(error, ModuleNotFoundError):
        cure = f"pip install {error.name}"
    elif os.environ.get("MLFLOW_TRACKING_URI"):
        cure = "start its server, correct MLFLOW_TRACKING_URI, or unset it"
    elif re.search("not a database|malformed|damaged|no such (table|column)", reason):
        file = shlex.quote(uri.removeprefix("sqlite:///"))
        cure = f"mv {file} {file}.bad; pulmo sync"
    else:
        cure = "check the file, its folder and the free space"
    reason = textwrap.shorten(hide_secrets(reason, uri), 160)
    return UserError(f"the MLflow store {show_address(uri)} cannot be used: {reason}", cure)


def from_mlflow(error: Exception, root: Path) -> UserError | None:
    """MLflow's error about the store of a project, as a mistake that can be put right; None for any other error."""
    mlflow = load_mlflow()
    if not isinstance(error, mlflow.exceptions.MlflowException):
        return None
    if error.error_code == "INVALID_PARAMETER_VALUE" and "'active' state" not in str(error):
        return None  # asked wrongly, which is a bug
    return unusable(store_uri(root), error)


def reach(uri: str) -> None:
    """Raise at once where nothing answers: MLflow asks again for minutes before it does."""
    place = urlsplit(uri)
    kind = place.scheme.partition("+")[0]
    proxied = kind in getproxies() and not proxy_bypass(place.hostname or "")
    if place.hostname and (port := place.port or _PORTS.get(kind)) and not proxied:
        socket.create_connection((place.hostname, port), timeout=5).close()
    if kind in _DATABASES:
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        sqlalchemy.inspect(engine).get_schema_names()


def quote(text: str) -> str:
    """A text as value in a filter of MLflow, which knows no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _ensure_experiment(client: Any, artifacts_at: Path | None) -> Any:
    # Without a location of its own, an experiment first opened by a temporary run would record a folder DVC deletes.
    if experiment := client.get_experiment_by_name(EXPERIMENT):  # also a deleted one
        return experiment
    place = (artifacts_at / "mlartifacts").as_uri() if artifacts_at else None
    try:
        return client.get_experiment(client.create_experiment(EXPERIMENT, place))
    except load_mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(EXPERIMENT)  # another machine was faster


def load_mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    return mlflow
