"""MLflow's page: an address that opens on the table of runs, with the columns that matter and the best run first.

MLflow takes the columns of a table from a view that is stored as a tag of the experiment and named in the address.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.request import urlopen

from pulmo.base.errors import UserError
from pulmo.tracking.store import DESCRIPTION, Store

VIEW = "pulmo"
_METRICS = ("val.auroc", "val.auroc_rendered", "test.auroc", "test.accuracy", "test.sensitivity", "test.specificity")
_PARAMS = ("train.lr", "train.arch")
NOTE = """\
Every run is one experiment of DVC, under the same name. The table is sorted by validation AUROC. Test is for
reading, not for choosing. The page to read first is `model_card.html` among the artifacts of a run.
"""
_SERVER = (
    *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
    *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
)
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five more processes, for jobs that Pulmo does not have
    "PYTHONWARNINGS": "ignore",
}
_TAG = f"mlflow.sharedViewState.{VIEW}"


def address(store: Store, server: str) -> str:
    """The address of the table of runs at `server`, such as http://127.0.0.1:5000. The view behind it is stored."""
    client = store.client
    experiment = client.get_experiment(store.experiment)
    columns = [f"metrics.`{name}`" for name in _METRICS] + [f"params.`{name}`" for name in _PARAMS]
    state = {
        "searchFilter": "",
        "orderByKey": columns[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
    }
    if _stored(experiment.tags.get(_TAG, "")) != state:
        now = int(time.time() * 1000)
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        view = {"name": "Pulmo: best on validation", "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
        client.set_experiment_tag(experiment.experiment_id, _TAG, json.dumps(view))
    if DESCRIPTION not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, DESCRIPTION, NOTE)
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{server}/#/experiments/{experiment.experiment_id}/runs?{query}"


def _stored(tag: str) -> Any:
    try:
        return json.loads(zlib.decompress(base64.b64decode(json.loads(tag)["state"].removeprefix("deflate;"))))
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


@contextmanager
def serve_page(store: Store, port: int, seconds: float = 180) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a server and its process, from the moment on when it answers; it ends with the context.

    A store that is a server itself has its own page and needs none here. Telemetry is off.
    """
    server = f"http://127.0.0.1:{port}"
    places = ["--backend-store-uri", store.uri, "--artifacts-destination", str(store.root / "mlartifacts")]
    command = [*_SERVER, "--port", str(port), *places]
    refusal = UserError(f"MLflow's page does not start at port {port}", "choose another one with --port")
    if _answers(server):  # the page of another project, which would be taken for this one
        raise refusal
    environment = os.environ | _ENVIRONMENT
    # In a session of its own, to be ended with its children.
    process = subprocess.Popen(command, cwd=store.root, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + seconds
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > end:
                raise refusal
            time.sleep(0.2)
        yield server, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(server: str) -> bool:
    try:
        with urlopen(f"{server}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def has_display() -> bool:
    """True where a browser can show itself: on macOS, or under X or Wayland."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
