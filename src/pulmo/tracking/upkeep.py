"""Repairs of the store: runs that a kill left open, and runs of experiments that only DVC knows."""

import hashlib
import os
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from pulmo.base.process import process_lives
from pulmo.tracking.contents import Run
from pulmo.tracking.logged_models import log_model
from pulmo.tracking.runs import BASELINE_TAG, EVALUATED, EXPERIMENT_TAG, HOST, PID, PID_STARTED, process_tags
from pulmo.tracking.store import Store, checked, clean_names

_ADDRESSES = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
REPLACED = "pulmo.replaced"  # a run of an experiment whose name another one bears now


def ask_once() -> None:
    """Have this process wait seconds, not minutes, for a server that takes the call and never answers."""
    for key, value in (("MLFLOW_HTTP_REQUEST_TIMEOUT", "5"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")):
        os.environ.setdefault(key, value)


def probe_store(store: Store) -> int:
    """The number of runs that the store holds, once a write to it has succeeded; UserError where none does."""
    uri = store.uri
    with checked(uri):
        if uri.startswith("sqlite:///"):
            with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=5)) as file:
                (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(f"damaged: {said}")
        store.client.set_experiment_tag(store.experiment, "pulmo.probed", datetime.now().isoformat(timespec="seconds"))
        return len(store.find_runs())


def find_experiment_runs(store: Store) -> dict[tuple[str, str], list[Any]]:
    """The runs of each experiment by its name and baseline, the last one first."""
    runs: dict[tuple[str, str], list[Any]] = {}
    for run in store.find_runs(f"tags.`{EXPERIMENT_TAG}` != ''"):
        runs.setdefault((run.data.tags[EXPERIMENT_TAG], run.data.tags.get(BASELINE_TAG, "")), []).append(run)
    return runs


def find_evaluations(store: Store, evaluation: str) -> list[Any]:
    """The evaluated runs that left this text as reports/evaluation.json, the last one first."""
    digest = hashlib.sha256(evaluation.encode()).hexdigest()
    return store.find_runs(f"tags.evaluation_sha256 = '{digest}' and tags.`{EVALUATED}` = 'true'")


def list_left_open(store: Store, older_than: float | None = None) -> tuple[list[Any], list[Any]]:
    """Runs RUNNING whose process is surely gone, and those of which this machine cannot tell.

    A process of this machine is looked up by its number and start; a run of another machine counts as gone where
    `older_than` is given and it was started more than so many hours ago.
    """
    judged = [(run, is_gone(run, older_than)) for run in store.find_runs("attributes.status = 'RUNNING'")]
    return [run for run, gone in judged if gone], [run for run, gone in judged if gone is None]


def is_gone(run: Any, older_than: float | None = None) -> bool | None:
    """True where the process that wrote a run last is gone, as in `list_left_open`; None where that cannot be told."""
    tags = run.data.tags
    started = float(tags.get(PID_STARTED, 0))
    if is_from_here(run) and PID in tags:
        return not process_lives(int(tags[PID]), started)
    old = older_than is not None and time.time() - max(started, run.info.start_time / 1000) > older_than * 3600
    return True if old else None


def is_from_here(run: Any) -> bool:
    """True where a process of this machine wrote a run last."""
    return bool(run.data.tags.get(HOST) == socket.gethostname())


def close_run(store: Store, run: Any, status: str = "KILLED") -> None:
    """End a run as KILLED, or FAILED, at the time of its last metric."""
    points = [store.client.get_metric_history(run.info.run_id, key)[-1].timestamp for key in run.data.metrics]
    store.client.set_terminated(run.info.run_id, status, max(points, default=run.info.start_time))


def move_artifacts(store: Store, dry_run: bool = False) -> int:
    """Have the addresses of artifacts in mlflow.db, which are absolute, lead here again after the checkout was moved or
    copied; returns how many did not (with `dry_run`, nothing is changed). Any other store is left alone.

    An address is changed only where it leads to the former checkout, and either that has no such file or this one has.
    """
    file = store.root / "mlflow.db"
    if store.uri != f"sqlite:///{file}":
        return 0
    former = store.client.get_experiment(store.experiment).artifact_location
    here = (store.root / "mlartifacts").as_uri()
    if former == here or not former.startswith("file://"):
        return 0
    moved = 0
    # One transaction, which ends without a change where an error, a kill or `dry_run` keeps it from its COMMIT.
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN" if dry_run else "BEGIN IMMEDIATE")
        for table, column in _ADDRESSES:
            for row, old in database.execute(
                f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE 'file:%'"
            ).fetchall():
                new = here + old.removeprefix(former)
                within = f"{old}/".startswith(f"{former}/")
                if within and (_as_path(new).exists() or not _as_path(old).exists()):
                    moved += 1
                    if not dry_run:
                        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
        if not dry_run:
            database.execute("COMMIT")
    return moved


def _as_path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def mark_replaced(store: Store, run: Any, replaced: bool) -> None:
    """Tag a run whose experiment another one of its name replaced, or take the tag from it."""
    if replaced:
        store.client.set_tag(run.info.run_id, REPLACED, "true")
    else:
        store.client.delete_tag(run.info.run_id, REPLACED)


@dataclass(frozen=True)
class Record:
    """All that DVC holds of an experiment, as the run of it is to hold it."""

    name: str
    created: float  # seconds since 1970
    evaluated: bool  # else it failed
    params: Mapping[str, Any]  # flat
    tags: Mapping[str, object]
    metrics: Mapping[str, float | None]
    history: Sequence[Mapping[str, float]]  # a row per epoch
    texts: Mapping[str, str]  # of the artifacts, by file name
    summary: str  # in words
    package: Path | None  # folder of the model


def find_broken(store: Store, record: Record) -> Any | None:
    """The run in which an experiment was trained, where it was to be evaluated too and the store did not take that."""
    run = store.find_run(str(record.tags.get("train_run_id", "")))
    if run is None or EVALUATED in run.data.tags or not record.evaluated:
        return None
    tags, own = run.data.tags, run.data.params
    same = all(tags.get(key, "") == record.tags.get(key, "") for key in (EXPERIMENT_TAG, BASELINE_TAG))
    same = same and all(_may_hold(own.get(key), value) for key, value in clean_names(record.params).items())
    return run if same and (run.info.status != "RUNNING" or is_gone(run)) else None


def _may_hold(logged: str | None, value: Any) -> bool:
    """True where a run holds this value of a param, or none, for the store may have failed before it had any."""
    return logged in (None, str(value)) or (isinstance(value, int) and logged == str(float(value)))


def complete_run(store: Store, run: Any, record: Record) -> None:
    """Add to a run what the store did not take, and end it as FINISHED."""
    opened = Run(store.client, run.info.run_id, run.info.run_name)
    opened.epochs = store.last_epoch(run)
    opened.set_tags(record.tags)
    missing = {key: value for key, value in clean_names(record.params).items() if key not in run.data.params}
    _fill(store, opened, replace(record, params=missing))
    store.client.set_terminated(run.info.run_id, "FINISHED", int(record.created * 1000))


def add_run(store: Store, record: Record) -> None:
    """Add a whole run, FINISHED or FAILED. None of it stays on an error."""
    stamp = int(record.created * 1000)
    tags = {"mlflow.source.name": "dvc", **process_tags(), **record.tags}
    run = Run(store.client, store.create_run(record.name, tags, stamp), record.name)
    try:
        _fill(store, run, record)
    except BaseException:
        store.client.delete_run(run.run_id)
        raise
    store.client.set_terminated(run.run_id, "FINISHED" if record.evaluated else "FAILED", stamp)


def _fill(store: Store, run: Run, record: Record) -> None:
    store.log_params(run.run_id, record.params)
    for row in record.history:
        run.log_epoch(row)
    run.log_metrics(record.metrics)
    if record.summary:
        run.describe(record.summary)
    for file, text in record.texts.items():
        store.client.log_text(run.run_id, text, file)
        if file.endswith((".json", ".csv")):
            run.tag_hash(Path(file).stem, text.encode())
    if record.package:
        log_model(store.client, run.run_id, record.package, np.zeros((64, 64), dtype=np.uint8))
    if record.evaluated:
        run.set_tags({EVALUATED: "true"})
