"""Repairs of the store: runs that a kill left open, and runs of experiments that only DVC knows."""

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from pulmo.base.process import process_lives
from pulmo.tracking.contents import Run
from pulmo.tracking.models import log_model
from pulmo.tracking.runs import BASELINE_TAG, EVALUATED, EXPERIMENT_TAG, HOST, PID, PID_STARTED, process_tags
from pulmo.tracking.store import EXPERIMENT, load_mlflow, open_store, search, store_uri, unusable

_ADDRESSES = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
REPLACED = "pulmo.replaced"  # a run of an experiment whose name another one bears now


def probe_store(root: Path) -> int:
    """How many runs the store holds, once a write to it has succeeded; UserError, within seconds, where none does."""
    uri = store_uri(root)
    for key, value in (("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")):
        os.environ.setdefault(key, value)  # a server that takes the call and never answers
    client = open_store(root)
    logging.disable()  # MLflow logs the traceback of each error it meets
    try:
        if uri.startswith("sqlite:///"):
            with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=5)) as file:
                (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(f"damaged: {said}")
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        client.set_experiment_tag(experiment, "pulmo.probed", datetime.now().isoformat(timespec="seconds"))
        return len(find_runs(root))
    except Exception as error:  # every database driver has errors of its own
        raise unusable(uri, error) from None
    finally:
        logging.disable(logging.NOTSET)


def find_runs(root: Path, condition: str = "") -> list[Any]:
    """As `search`, for callers that have no client."""
    return search(open_store(root), condition)


def find_experiment_runs(root: Path) -> dict[tuple[str, str], list[Any]]:
    """The runs of each experiment by its name and baseline, the last one first."""
    found: dict[tuple[str, str], list[Any]] = {}
    for run in find_runs(root, f"tags.`{EXPERIMENT_TAG}` != ''"):
        found.setdefault((run.data.tags[EXPERIMENT_TAG], run.data.tags.get(BASELINE_TAG, "")), []).append(run)
    return found


def list_left_open(root: Path, older_than: float | None = None) -> tuple[list[Any], list[Any]]:
    """Runs RUNNING whose process is surely gone, and those of which this machine cannot tell.

    A process of this machine is looked up by its number and start; a run of another machine counts as gone where
    `older_than` is given and it was started more than so many hours ago.
    """
    told = [(run, is_gone(run, older_than)) for run in find_runs(root, "attributes.status = 'RUNNING'")]
    return [run for run, gone in told if gone], [run for run, gone in told if gone is None]


def is_gone(run: Any, older_than: float | None = None) -> bool | None:
    """Whether the process that wrote a run last is gone, as in `list_left_open`; None where none can tell."""
    tags = run.data.tags
    started = float(tags.get(PID_STARTED, 0))
    if tags.get(HOST) == socket.gethostname() and PID in tags:
        return not process_lives(int(tags[PID]), started)
    old = older_than is not None and time.time() - max(started, run.info.start_time / 1000) > older_than * 3600
    return True if old else None


def close_run(root: Path, run: Any, status: str = "KILLED") -> None:
    """End a run as KILLED, or FAILED, at the time of its last metric."""
    client = open_store(root)
    points = [client.get_metric_history(run.info.run_id, key)[-1].timestamp for key in run.data.metrics]
    client.set_terminated(run.info.run_id, status, max(points, default=run.info.start_time))


def move_artifacts(root: Path, look: bool = False) -> int:
    """Have the addresses of artifacts in mlflow.db, which are absolute, lead here again after the checkout was moved or
    copied; returns how many did not (with `look`, nothing is changed). Any other store is left alone.

    An address is changed only where it leads to the former checkout, and either that has no such file or this one has.
    """
    if os.environ.get("MLFLOW_TRACKING_URI") or not (root / "mlflow.db").exists():
        return 0
    former = open_store(root).get_experiment_by_name(EXPERIMENT).artifact_location
    here = (root / "mlartifacts").as_uri()
    if former == here or not former.startswith("file://"):
        return 0
    moved = 0
    # One transaction, which ends without a change where an error, a kill or `look` keeps it from its COMMIT.
    with closing(sqlite3.connect(root / "mlflow.db", timeout=60, isolation_level=None)) as store:
        store.execute("BEGIN" if look else "BEGIN IMMEDIATE")
        for table, column in _ADDRESSES:
            for row, old in store.execute(
                f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file:%'"
            ).fetchall():
                new = here + old.removeprefix(former)
                within = f"{old}/".startswith(f"{former}/")
                if within and (_as_path(new).exists() or not _as_path(old).exists()):
                    moved += 1
                    if not look:
                        store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
        if not look:
            store.execute("COMMIT")
    return moved


def _as_path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def mark_replaced(root: Path, run: Any, replaced: bool) -> None:
    """Tag a run whose experiment another one of its name replaced, or take the tag from it."""
    client = open_store(root)
    if replaced:
        client.set_tag(run.info.run_id, REPLACED, "true")
    else:
        client.delete_tag(run.info.run_id, REPLACED)


def add_run(
    root: Path,
    name: str,
    *,
    created: float,
    evaluated: bool,
    params: Mapping[str, Any],
    tags: Mapping[str, object],
    metrics: Mapping[str, float | None],
    history: Sequence[Mapping[str, float]],
    texts: Mapping[str, str],
    package: Path | None,
) -> str:
    """A whole run out of what DVC holds, FINISHED or (not `evaluated`) FAILED; its id. None of it stays on an error.

    `created` in seconds since 1970, `params` flat, `history` a row per epoch, `texts` artifacts by name,
    `package` the folder of the model.
    """
    client, entity = open_store(root), load_mlflow().entities.Param
    experiment, stamp = client.get_experiment_by_name(EXPERIMENT).experiment_id, int(created * 1000)
    tagged = {key: str(value) for key, value in {"mlflow.source.name": "dvc", **process_tags(), **tags}.items()}
    run_id = str(client.create_run(experiment, stamp, tagged, name).info.run_id)
    run = Run(client, run_id, name)
    try:
        client.log_batch(run_id, params=[entity(key, str(value)) for key, value in params.items()])
        for row in history:
            run.log_epoch(row)
        run.log_metrics(metrics)
        for file, text in texts.items():
            client.log_text(run_id, text, file)
            if file.endswith(".json"):
                run.tag_hash(file.removesuffix(".json"), text.encode())
        if package:
            log_model(client, run_id, package, np.zeros((64, 64), dtype=np.uint8))
    except BaseException:
        client.delete_run(run_id)
        raise
    if evaluated:
        client.set_tag(run_id, EVALUATED, "true")
    client.set_terminated(run_id, "FINISHED" if evaluated else "FAILED", stamp)
    return run_id
