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
from pulmo.base.params_file import flatten
from pulmo.tracking.contents import Run
from pulmo.tracking.machine import describe_machine, watch_machine
from pulmo.tracking.outbox import Outbox
from pulmo.tracking.store import Store, checked, clean_names, open_store, server_answers, store_uri

EVALUATED = "pulmo.evaluated"
EXPERIMENT_TAG, BASELINE_TAG = "dvc.experiment", "dvc.baseline"
PARENT_TAG, PARENT_RUN = "mlflow.parentRunId", "PULMO_PARENT_RUN"  # the latter in the environment of a sweep's trials
HOST, PID, PID_STARTED = "pulmo.host", "pulmo.pid", "pulmo.pid_started"  # the process that writes it


@contextmanager
def train_run(
    root: Path, params: Mapping[str, Any], tags: Mapping[str, object], resumed_id: str | None = None
) -> Iterator[Run]:
    """The run of this experiment, for train; the one that a killed training left open where `resumed_id` names it."""
    started, run = time.monotonic(), _new_run(root)
    _open_run(run, root, resumed_id, params, {**describe_machine(), **tags})
    with _ending(run), watch_machine(run):
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
    A server that does not answer is no obstacle: it did when train began, and is asked again until evaluate ends.
    """
    started, run = time.monotonic(), _new_run(root)
    tags = {**tags, **trained["environment"], "train_run_id": trained["run_id"]}
    if server_answers(store_uri(root)):
        _open_run(run, root, trained["run_id"], params, tags)
    else:
        run.write(lambda: _open_run(run, root, trained["run_id"], params, tags))
    with _ending(run):
        for row in history:  # train's own run holds them
            run.log_epoch(row)
        yield run
        run.log_metrics({"seconds.evaluate": time.monotonic() - started})
        run.set_tags({EVALUATED: "true"})


def _new_run(root: Path) -> Run:
    """The run of the present experiment, not yet in the store."""
    name = _experiment()[0] or f"repro-{git_state(Path.cwd())[0][:7]}"
    return Run(None, "", name, Outbox(store_uri(root)))


def _open_run(run: Run, root: Path, run_id: str | None, params: Mapping[str, Any], tags: Mapping[str, object]) -> None:
    """Have `run` go on in the run `run_id` of the store where that is ours, else in a new one with params and tags."""
    store = open_store(root)
    with checked(store.uri):
        run.client = store.client
        if not (run_id and _reopen(run, store, run_id, params)):
            _create_run(run, store, params, tags)


def _reopen(run: Run, store: Store, run_id: str, params: Mapping[str, Any]) -> bool:
    """Go on in a run, RUNNING again, if it is the present experiment's, has its params and was not yet evaluated."""
    earlier = store.find_run(run_id)
    if earlier is None or EVALUATED in earlier.data.tags or earlier.data.params != _as_params(params):
        return False
    name, baseline = _experiment()
    if earlier.data.tags.get(EXPERIMENT_TAG) != name or (baseline and earlier.data.tags.get(BASELINE_TAG) != baseline):
        return False
    for key, value in process_tags().items():  # before the status, which says that this process lives
        store.client.set_tag(run_id, key, value)
    store.client.update_run(run_id, status="RUNNING")
    run.epochs = store.last_epoch(earlier)
    run.run_id, run.name, run.tags = run_id, earlier.info.run_name, dict(earlier.data.tags)
    return True


def _create_run(run: Run, store: Store, params: Mapping[str, Any], tags: Mapping[str, object]) -> None:
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
        **tags,
    }
    if parent := os.environ.get(PARENT_RUN):
        own[PARENT_TAG] = parent
    run.run_id = store.create_run(run.name, own)
    run.tags = {key: str(value) for key, value in own.items()}
    store.log_params(run.run_id, _as_params(params))


def process_tags() -> dict[str, str]:
    """Tags of the process that writes a run, so that a run left open by a kill can be told from one under way."""
    started = str(psutil.Process().create_time())
    return {HOST: socket.gethostname(), PID: str(os.getpid()), PID_STARTED: started}


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    try:
        yield
    except Exception:
        run.end("FAILED")
        raise
    except BaseException:
        run.end("KILLED")
        raise
    run.end("FINISHED")


def _experiment() -> tuple[str, str]:
    """Name and baseline of the DVC experiment that this process runs in; empty under `dvc repro`."""
    return os.environ.get("DVC_EXP_NAME", ""), os.environ.get("DVC_EXP_BASELINE_REV", "")


def _as_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Params as the store holds them."""
    return {key: str(value) for key, value in clean_names(flatten(params)).items()}
