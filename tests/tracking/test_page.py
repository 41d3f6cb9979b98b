import base64
import json
import re
import signal
import socket
import subprocess
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from small_project import PULMO

from pulmo.base.errors import UserError
from pulmo.tracking.page import address, serve_page
from pulmo.tracking.store import EXPERIMENT, open_store


@pytest.fixture
def store(empty_store, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    empty_store(tmp_path)
    return open_store(tmp_path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def state_of(client) -> dict:
    tag = client.get_experiment_by_name(EXPERIMENT).tags["mlflow.sharedViewState.pulmo"]
    packed = json.loads(tag)["state"].removeprefix("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_address_opens_the_runs_with_their_metrics_best_first(store):
    link = address(store, "http://127.0.0.1:5000")
    where, _, query = urlsplit(link).fragment.partition("?")
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    assert where == f"/experiments/{experiment.experiment_id}/runs"
    assert parse_qs(query) == {"workflowType": ["machine_learning"], "viewStateShareKey": ["pulmo"]}, "nothing else"
    state = state_of(store.client)
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val.auroc`", False)
    shown = {re.sub(r"^\w+\.`(.*)`$", r"\1", column) for column in state["selectedColumns"]}
    assert {"val.auroc", "test.auroc", "test.accuracy", "test.sensitivity", "test.specificity"} <= shown
    assert {"train.lr", "train.arch"} <= shown
    assert "model_card.html" in store.client.get_experiment_by_name(EXPERIMENT).tags["mlflow.note.content"]


def test_a_note_of_the_user_and_an_unchanged_view_stay(store):
    experiment = store.client.get_experiment_by_name(EXPERIMENT).experiment_id
    store.client.set_experiment_tag(experiment, "mlflow.note.content", "ours")
    address(store, "http://x")
    before = store.client.get_experiment_by_name(EXPERIMENT).tags
    address(store, "http://x")
    assert store.client.get_experiment_by_name(EXPERIMENT).tags == before
    assert before["mlflow.note.content"] == "ours"
    store.client.set_experiment_tag(experiment, "mlflow.sharedViewState.pulmo", "spoilt")
    address(store, "http://x")
    assert state_of(store.client)["selectedColumns"]


def test_the_server_of_another_project_at_that_port_is_not_taken_for_our_own(store):
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_address[1]
        with pytest.raises(UserError, match=f"page does not start at port {port}"), serve_page(store, port):
            pass
        other.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_page_of_this_project_opens_from_any_of_its_folders(store, tmp_path, ending):
    (tmp_path / ".dvc").mkdir()
    inner = tmp_path / "docs"
    inner.mkdir()
    port = free_port()
    command = [*PULMO, "ui", "--port", str(port), "--no-browser"]

    def heed_signals() -> None:  # nohup, or a shell that starts jobs in the background, has them ignored
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    page = subprocess.Popen(command, cwd=inner, preexec_fn=heed_signals, **pipes)
    try:
        line = next(line for line in page.stdout if "http" in line)
        assert f"http://127.0.0.1:{port}/#/experiments/" in line
    finally:
        page.send_signal(ending)
        page.wait(60)
    time.sleep(1)
    with pytest.raises(OSError, match="refused"):  # nothing of the server is left
        urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
    assert list(inner.iterdir()) == [], "no empty store where the command was given"
