import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from registered_models import change, register
from small_package import make_package

from pulmo import Predictor
from pulmo.answering.champion import NotAtHand, find_model, find_registered
from pulmo.base.errors import UserError


@pytest.fixture
def root(tmp_path, empty_store, monkeypatch) -> Path:
    """A project whose store has two versions of one model; the first is champion."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    empty_store(tmp_path)
    register(tmp_path, {number: (tmp_path / f"store/m {number}/artifacts").as_uri() for number in (1, 2)})
    for number in (1, 2):
        tag = f"('pulmo', {number}, 'experiment', 'exp{number}')"
        change(tmp_path, f"INSERT INTO model_version_tags (name, version, key, value) VALUES {tag}")
        (tmp_path / f"store/m {number}/artifacts/data/package").mkdir(parents=True)
        (tmp_path / f"store/m {number}/artifacts/data/package/model.json").write_text("{}")
    return tmp_path


def test_the_champion_is_the_version_that_bears_the_alias_now(root):
    place = find_model()
    assert (place.name, place.version) == ("exp1", "1")
    assert place.folder == root / "store/m 1/artifacts/data/package"
    change(root, "UPDATE registered_model_aliases SET version = 2")
    assert find_model().version == "2", "an alias that was moved counts at once"
    assert find_model("models:/pulmo/1").name == "exp1"
    change(root, "DELETE FROM registered_model_aliases")
    assert find_registered() is None
    with pytest.raises(UserError, match=r"models:/pulmo@champion is not in the store"):
        find_model()


def test_a_model_that_was_registered_without_a_run_is_never_taken_for_another(root):
    change(root, "UPDATE model_versions SET run_id = NULL")
    assert find_model().folder == root / "store/m 1/artifacts/data/package"
    change(root, "UPDATE model_versions SET storage_location = 'mlflow-artifacts:/1/models/m-1/artifacts'")
    (root / ".champion/run7/data").mkdir(parents=True)
    (root / ".champion/run7/data/model.json").write_text("{}")
    with pytest.raises(UserError, match="version 1 belongs to no run"):
        find_model()


def test_a_predictor_is_loaded_by_the_address_in_the_registry(root):
    make_package(root / "store/m 1/artifacts/data/package")
    model = Predictor.load("models:/pulmo@champion").model
    assert (model.name, model.version) == ("exp1", "1")


def test_what_is_wrong_with_a_store_or_an_address_is_said(root, monkeypatch):
    with pytest.raises(UserError, match="models:/pulmo is no address of a registered model"):
        find_model("models:/pulmo")
    shutil.rmtree(root / "store/m 1")
    with pytest.raises(UserError, match=r"m 1/artifacts.*holds no package"):
        find_model()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://name:secret@host/db")
    with pytest.raises(NotAtHand, match="only MLflow can read the store at postgresql://") as error:
        find_model()
    assert "secret" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://name:secret@[host")
    with pytest.raises(UserError, match="does not answer: Invalid IPv6 URL") as error:
        find_model()
    assert "secret" not in str(error.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db cannot be read: file is not a database"):
        find_model()
    (root / "mlflow.db").unlink()
    assert find_registered() is None


class Registry(BaseHTTPRequestHandler):
    """A tracking server that knows one model."""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        alias = parse_qs(place.query).get("alias") == ["champion"]
        known = place.path == "/api/2.0/mlflow/registered-models/alias" and alias
        tags = [{"key": "experiment", "value": self.headers.get("Authorization", "nobody")}]
        version = {"version": "7", "run_id": "run7", "source": "mlflow-artifacts:/1/models/m-7/artifacts", "tags": tags}
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"model_version": version}).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_is_asked_by_its_rest_interface(root, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://Ada:secret@{address}")
    try:
        with pytest.raises(NotAtHand, match="version 7 is not on this disk yet"):
            find_model()
        (root / ".champion/run7/data").mkdir(parents=True)
        (root / ".champion/run7/data/model.json").write_text("{}")
        place = find_model()
        assert (place.folder, place.version) == (root / ".champion/run7/data", "7")
        assert place.name == "Basic QWRhOnNlY3JldA=="
        assert find_registered("models:/pulmo@other") is None
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(UserError, match=r"the MLflow server at http://127\.0\.0\.1:\d+ does not answer") as error:
        find_model()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:pa/secret@127.0.0.1:1",
        "http://user:secret/pa@127.0.0.1:1",
        "http://user:p@secret@127.0.0.1:1",
        "http://secret@127.0.0.1:1",
        "http://127.0.0.1:1?token=secret",
    ],
)
def test_a_server_that_does_not_answer_is_told_by_scheme_and_host_alone(address, root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match=r"the MLflow server at http://127\.0\.0\.1:1 does not answer") as error:
        find_model()
    assert "secret" not in str(error.value)
