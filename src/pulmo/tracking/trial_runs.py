"""A sweep in the store: one parent run named after the study, and the runs of its trials below it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pulmo.tracking.contents import Run
from pulmo.tracking.runs import PARENT_TAG, PID, process_tags
from pulmo.tracking.store import EPOCH, Store, quote

_SWEEP_TAG, _PRUNED_TAG = "pulmo.sweep", "pulmo.pruned"


@dataclass(frozen=True)
class Trial:
    """The run of a trial as it stands now."""

    run_id: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    pid: int  # of the stage that writes it, on this machine
    val_auroc: Mapping[int, float]  # by epoch


def open_sweep(store: Store, study: str) -> Run:
    """The parent run of a study, RUNNING; every worker with this store gets the same one."""
    tags = {_SWEEP_TAG: study, "mlflow.source.name": "pulmo sweep", **process_tags()}
    named = f"tags.`{_SWEEP_TAG}` = '{study}'"
    if not store.find_runs(named):
        store.create_run(study, tags)
    # Two workers may have looked at once and found none: both take the older one.
    first, *others = store.find_runs(named, order_by=["attributes.start_time", "attributes.run_id"])
    for other in others:
        if other.data.tags[PID] == str(os.getpid()):
            store.client.delete_run(other.info.run_id)
    run = Run(store.client, first.info.run_id, study)
    run.set_tags(tags)
    store.client.update_run(run.run_id, status="RUNNING")
    return run


def read_trial(store: Store, sweep: Run, name: str) -> Trial | None:
    """The last run of that name below the sweep, or None where it has not begun."""
    runs = store.find_runs(f"tags.`{PARENT_TAG}` = '{sweep.run_id}' and attributes.run_name = {quote(name)}")
    if not runs:
        return None
    info, tags = runs[0].info, runs[0].data.tags
    curve = {point.step: point.value for point in store.client.get_metric_history(info.run_id, f"{EPOCH}val_auroc")}
    return Trial(info.run_id, info.status, int(tags[PID]), curve)


def mark_pruned(store: Store, trial: Trial) -> None:
    """End a run that was stopped for its poor curve, perhaps between its stages; the tag tells it from a killed one."""
    store.client.set_tag(trial.run_id, _PRUNED_TAG, "true")
    store.client.set_terminated(trial.run_id, "KILLED")


def close_lost(store: Store, sweep: Run, name: str) -> None:
    """End the run of a trial whose process is gone, on whatever machine that was."""
    trial = read_trial(store, sweep, name)
    if trial and trial.status == "RUNNING":
        store.client.set_terminated(trial.run_id, "KILLED")
