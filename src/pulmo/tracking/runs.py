"""The run of an experiment: who opens it, who goes on in it, and how it ends."""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pulmo.base.git import git_state, run_git
from pulmo.base.params import flatten
from pulmo.tracking.contents import Run
from pulmo.tracking.machine import describe_machine, watch_machine
from pulmo.tracking.store import Store, open_store

EVALUATED = "pulmo.evaluated"
EXPERIMENT_TAG, BASELINE_TAG = "dvc.experiment", "dvc.baseline"
PARENT_TAG, PARENT_RUN = "mlflow.parentRunId", "PULMO_PARENT_RUN"  # the latter in the environment of a sweep's trials
HOST, PID, PID_STARTED = "pulmo.host", "pulmo.pid", "pulmo.pid_started"  # the process that writes it


@contextmanager
def train_run(
    root: Path, params: Mapping[str, Any], tags: Mapping[str, object], resumed_id: str | None = None
) -> Iterator[Run]:
    """The run of this experiment, for train; the one that a killed training left open where `resumed_id` names it."""
    started, store = time.monotonic(), open_store(root)
    run = _reopen(store, resumed_id, params) or _create_run(store, params, {**describe_machine(), **tags})
    with _ending(store.client, run.run_id), watch_machine(store.client, run.run_id):
        yield run
        run.log_metrics({"seconds.train": time.monotonic() - started})


@contextmanager
def evaluate_run(
    root: Path,
    trained: Mapping[str, Any],
    params: Mapping[str, Any],
    tags: Mapping[str, object],
    history: Iterable[Mapping[str, float]],
) -> Iterator[Run]:
    """The run of this experiment, for evaluate: train's where it is ours and not yet evaluated, else a new whole one.

    `trained` is the record of the run that trained; a new run copies its environment and the `history` of its epochs.
    """
    started, store = time.monotonic(), open_store(root)
    origin = {**trained["environment"], "train_run_id": trained["run_id"]}
    run = _reopen(store, trained["run_id"], params) or _create_run(store, params, {**tags, **origin})
    with _ending(store.client, run.run_id):
        for row in history:  # train's own run holds them
            run.log_epoch(row)
        yield run
        run.log_metrics({"seconds.evaluate": time.monotonic() - started})
        run.set_tags({EVALUATED: "true"})


def _reopen(store: Store, run_id: str | None, params: Mapping[str, Any]) -> Run | None:
    """The run, RUNNING again, if it belongs to the present experiment, has its params and was not yet evaluated."""
    run = store.find_run(run_id) if run_id else None
    if run is None or EVALUATED in run.data.tags or run.data.params != _as_params(params):
        return None
    name, baseline = _experiment()
    if run.data.tags.get(EXPERIMENT_TAG) != name or (baseline and run.data.tags.get(BASELINE_TAG) != baseline):
        return None
    opened = Run(store.client, run.info.run_id, run.info.run_name)
    opened.set_tags(process_tags())  # before the status, which says that this process lives
    store.client.update_run(run_id, status="RUNNING")
    if "val_loss" in run.data.metrics:
        opened.epochs = max(point.step for point in store.client.get_metric_history(run_id, "val_loss"))
    return opened


def _create_run(store: Store, params: Mapping[str, Any], tags: Mapping[str, object]) -> Run:
    experiment, baseline = _experiment()
    revision, dirty = git_state(Path.cwd())
    own = {
        "mlflow.source.git.commit": revision,
        "mlflow.source.name": "dvc",
        "mlflow.user": run_git(store.root, "config", "user.name") or "unknown",
        "git.revision": revision,
        "git.dirty": dirty,
        EXPERIMENT_TAG: experiment,
        BASELINE_TAG: baseline or revision,
        **process_tags(),
    }
    if parent := os.environ.get(PARENT_RUN):
        own[PARENT_TAG] = parent
    name = experiment or f"repro-{revision[:7]}"
    run_id = store.create_run(name, {**own, **tags})
    store.log_params(run_id, _as_params(params))
    return Run(store.client, run_id, name)


def process_tags() -> dict[str, str]:
    """Tags of the process that writes a run, so that a run left open by a kill can be told from one under way."""
    started = str(psutil.Process().create_time())
    return {HOST: socket.gethostname(), PID: str(os.getpid()), PID_STARTED: started}


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


def _experiment() -> tuple[str, str]:
    """Name and baseline of the DVC experiment that this process runs in; empty under `dvc repro`."""
    return os.environ.get("DVC_EXP_NAME", ""), os.environ.get("DVC_EXP_BASELINE_REV", "")


def _as_params(params: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in flatten(params).items()}
