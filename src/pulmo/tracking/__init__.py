"""MLflow behind one door: where runs are stored, what they are called, and which run a stage belongs to.

One experiment of DVC is one run. `train` opens it and leaves its id in reports/mlflow_run.json; `evaluate` goes on in
that run only while it belongs to the present experiment and is not yet evaluated. Otherwise DVC took train from its
cache, and evaluate opens a run of its own, complete with parameters and the training history.
"""

from pulmo.tracking.contents import Run
from pulmo.tracking.runs import EVALUATED, EXPERIMENT_TAG, HOST, evaluate_run, train_run
from pulmo.tracking.store import (
    EXPERIMENT,
    flatten,
    git_state,
    hide_password,
    open_store,
    read_artifact,
    run_git,
    store_uri,
)
from pulmo.tracking.upkeep import (
    REPLACED,
    add_run,
    close_run,
    find_experiment_runs,
    find_runs,
    is_gone,
    list_left_open,
    mark_replaced,
    move_artifacts,
    probe_store,
    process_lives,
)

__all__ = [
    "EVALUATED",
    "EXPERIMENT",
    "EXPERIMENT_TAG",
    "HOST",
    "REPLACED",
    "Run",
    "add_run",
    "close_run",
    "evaluate_run",
    "find_experiment_runs",
    "find_runs",
    "flatten",
    "git_state",
    "hide_password",
    "is_gone",
    "list_left_open",
    "mark_replaced",
    "move_artifacts",
    "open_store",
    "probe_store",
    "process_lives",
    "read_artifact",
    "run_git",
    "store_uri",
    "train_run",
]
