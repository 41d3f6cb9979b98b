"""MLflow behind one door: where runs are stored, what they are called, and which run a stage belongs to.

One experiment of DVC is one run. `train` opens it and leaves its id in reports/mlflow_run.json; `evaluate` goes on in
that run only while it belongs to the present experiment and is not yet evaluated. Otherwise DVC took train from its
cache, and evaluate opens a run of its own, complete with parameters and the training history.
"""

from pulmo.tracking.runs import Run, evaluate_run, train_run
from pulmo.tracking.store import EXPERIMENT, flatten, git_state, open_store, read_artifact, store_uri

__all__ = [
    "EXPERIMENT",
    "Run",
    "evaluate_run",
    "flatten",
    "git_state",
    "open_store",
    "read_artifact",
    "store_uri",
    "train_run",
]
