import base64
import json
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from film_files import GRAY, encode
from small_package import make_package

from pulmo import Predictor
from pulmo.answering.admission import Limits
from pulmo.answering.champion import Place
from pulmo.answering.follow import Follower
from pulmo.answering.server import make_app

FILM = encode(GRAY, "PNG")
LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/pulmo/infer"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture
def client(package) -> TestClient:
    app = make_app(Follower(lambda: Place(package, "small", "7")), limits=Limits(films=3), token="secret")
    return TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": "Bearer secret"})


def tensor(*films: bytes, **changes) -> dict:
    data = [base64.b64encode(film).decode() for film in films]
    return {"inputs": [{"name": "film", "shape": [len(films)], "datatype": "BYTES", "data": data, **changes}]}


def pack(*films: bytes) -> bytes:
    return b"".join(len(film).to_bytes(4, "little") + film for film in films)


def send_binary(client: TestClient, head: dict, tail: bytes, length: object = None) -> httpx.Response:
    start = json.dumps(head).encode()
    return client.post(INFER, content=start + tail, headers={LENGTH: str(len(start) if length is None else length)})


def outputs_of(response: httpx.Response) -> dict[str, list[str]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def test_the_server_and_the_model_say_what_they_take(client):
    assert client.get("/v2/health/live", headers={"Authorization": ""}).json() == {"live": True}
    assert client.get("/v2/health/ready", headers={"Authorization": ""}).json() == {"ready": True}
    assert client.get("/v2/models/pulmo", headers={"Authorization": ""}).status_code == 401
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/pulmo/ready").json() == {"name": "pulmo", "ready": True}
    described = client.get("/v2/models/pulmo").json()
    assert described["versions"] == ["7"]
    assert described["inputs"] == [{"name": "film", "datatype": "BYTES", "shape": [-1]}]
    assert client.get("/v2/models/other").status_code == 404


def test_films_are_answered_as_by_the_other_interface(client):
    response = client.post(INFER, json={"id": "a1", **tensor(FILM, b"no film")})
    outputs = outputs_of(response)
    assert (response.json()["id"], response.json()["model_version"]) == ("a1", "7")
    first, second = (json.loads(text) for text in outputs["answer"])
    (expected,) = client.post("/v1/predict", files={"films": ("film 1", FILM)}).json()["films"]
    assert first == expected
    assert second["problem"]["detail"].startswith("not an image")
    assert outputs["label"] == [expected["answer"]["label"], ""]


def test_binary_tensors_go_both_ways(client):
    tail = pack(FILM, b"", FILM)
    head = {
        "inputs": [
            {"name": "film", "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
        ],
        "outputs": [{"name": "answer"}, {"name": "label", "parameters": {"binary_data": True}}],
    }
    response = send_binary(client, head, tail)
    length = int(response.headers[LENGTH])
    answer, label = json.loads(response.content[:length])["outputs"]
    first, empty, third = (json.loads(text) for text in answer["data"])
    assert first["answer"] == third["answer"]
    assert "empty" in empty["problem"]["detail"]
    assert label["parameters"]["binary_data_size"] == len(response.content) - length
    labels = [first["answer"]["label"].encode(), b"", third["answer"]["label"].encode()]
    assert response.content[length:] == pack(*labels)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[" * 5000,
        b"[" * 200_000,
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": {"name": "film"}}',
        json.dumps(tensor(FILM, name="image")).encode(),
        json.dumps(tensor(FILM, datatype="FP32")).encode(),
        json.dumps(tensor(FILM, shape=[2])).encode(),
        json.dumps(tensor(FILM, shape=None)).encode(),
        json.dumps(tensor(FILM, data="text")).encode(),
        json.dumps(tensor(FILM, data=[1])).encode(),
        json.dumps({**tensor(FILM), "outputs": [{"name": "mask"}]}).encode(),
        json.dumps({**tensor(FILM), "parameters": 3}).encode(),
    ],
)
def test_what_is_no_request_is_refused(client, content):
    check_refused(client.post(INFER, content=content))


@pytest.mark.parametrize(
    ("size", "length"), [(0, None), (10**12, None), ("x", None), (None, -5), (None, 10**9), (None, "x")]
)
def test_binary_tensors_that_lie_about_their_length_are_refused(client, size, length):
    tail = pack(FILM)
    size = len(tail) if size is None else size
    head = {"inputs": [{"name": "film", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}]}
    check_refused(send_binary(client, head, tail, length))
    head["inputs"][0]["parameters"]["binary_data_size"] = len(tail) - 1
    check_refused(send_binary(client, head, tail[:-1]))


def check_refused(response: httpx.Response) -> None:
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert "Open Inference Protocol" in response.json()["detail"]


def test_too_many_films_are_refused(client):
    assert client.post(INFER, json=tensor(*[FILM] * 4)).status_code == 413
    many = b"\0" * 40_000
    head = {
        "inputs": [{"name": "film", "shape": [10_000], "datatype": "BYTES", "parameters": {"binary_data_size": 40_000}}]
    }
    assert send_binary(client, head, many).status_code == 413


def test_the_version_is_that_of_the_model_that_answered(package, monkeypatch):
    champion = [Place(package, "small", "7")]
    follower = Follower(lambda: champion[0])
    old = follower.current()

    def score_while_the_champion_moves(films):
        champion[0] = Place(package, "small", "8")
        follower.look()
        return Predictor.score(old, films)

    monkeypatch.setattr(old, "score", score_while_the_champion_moves)
    client = TestClient(make_app(follower), base_url="http://127.0.0.1")
    for version in ("7", "8"):
        response = client.post(INFER, json=tensor(FILM))
        (answer,) = (json.loads(text)["answer"] for text in outputs_of(response)["answer"])
        assert (response.json()["model_version"], answer["model"]["version"]) == (version, version)


def test_a_name_that_is_no_text_comes_back_as_one(client):
    content = json.dumps({"id": "\ud800" * 300, **tensor(FILM)}).encode()
    assert client.post(INFER, content=content).json()["id"] == "?" * 255
