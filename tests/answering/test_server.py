import base64
import hashlib
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from hospital_films import STUDY, hospital_film
from PIL import Image
from report_reading import numbers, texts
from running_app import serving
from small_package import make_package, require_bf16
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering import service, words
from pulmo.answering.admission import Limits
from pulmo.answering.champion import Place
from pulmo.answering.follow import Follower
from pulmo.answering.metrics import Metrics
from pulmo.answering.server import make_app
from pulmo.base.errors import UserError
from pulmo.images.limits import MemoryShortage
from pulmo.metrics.estimates import ValueInInterval

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


@pytest.fixture(scope="module")
def film() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8))


def png(gray: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(gray).save(content, "PNG")
    return content.getvalue()


def client(package: Path, **options) -> TestClient:
    return TestClient(make_app(Follower(lambda: Place(package, "small", "7")), **options), base_url=LOCAL)


def send(client: TestClient, *films: bytes, query: str = "", **headers: str) -> httpx.Response:
    parts = [("films", (f"film{place}.png", content)) for place, content in enumerate(films)]
    return client.post(f"/v1/predict{query}", files=parts, headers=headers)


def test_a_server_in_bf16_answers_alike_and_says_so(package, film):
    require_bf16()
    follower = Follower(lambda: Place(package, "small", "7"), bf16=True)
    quick, exact = TestClient(make_app(follower), base_url=LOCAL), client(package)
    answers = [send(web, film).json()["films"][0]["answer"] for web in (quick, exact)]
    assert answers[0] == answers[1], "the first films are scored in fp32 too"
    assert [web.get("/v1/model").json()["bf16"] for web in (quick, exact)] == [True, False]


def test_reports_in_dicom_come_where_they_are_asked_for(package, film):
    web = client(package)
    content = hospital_film()
    plain = send(web, content).json()["films"][0]
    assert "dicom_sr" not in plain
    reported, refused, picture, unread = send(
        web, content, hospital_film(BodyPartExamined="KNEE"), film, content[:-2000], query="?dicom=1"
    ).json()["films"]
    assert "Called" in " ".join(texts(read_dicom(reported["dicom_sr"])))
    assert read_dicom(reported["dicom_picture"]).StudyInstanceUID == STUDY
    assert numbers(read_dicom(reported["dicom_sr"]))["111012"]
    assert "body part KNEE" in " ".join(texts(read_dicom(refused["dicom_sr"])))
    assert picture["answer"]["label"]
    assert (picture["dicom_sr"], "no DICOM file" in picture["dicom_problem"]) == (None, True)
    assert unread["problem"]["detail"] in " ".join(texts(read_dicom(unread["dicom_sr"])))
    assert unread["dicom_picture"] is None


def test_a_server_without_dicom_says_so(package, film, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)  # as where it is not installed
    check_problem(send(client(package), film, query="?dicom=1"), 501, "pulmo[dicom]")


def read_dicom(text: str) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(base64.b64decode(text)))


def check_problem(response: httpx.Response, status: int, text: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert text in response.json()["detail"]
    assert "Traceback" not in response.text
    assert "/" not in response.json()["detail"].replace("multipart/form-data", "")


def test_each_film_is_answered_or_has_its_problem(package, film):
    response = send(client(package), film, b"no film", film)
    first, second, third = response.json()["films"]
    expected = Predictor.load_folder(package, "small", "7").predict(film)
    assert first["answer"] == third["answer"] == json.loads(json.dumps(expected.to_dict()))
    assert first["answer"]["model"]["version"] == "7"
    assert [row["film"] for row in (first, second, third)] == ["film0.png", "film1.png", "film2.png"]
    assert "answer" not in second
    assert second["problem"]["status"] == 422
    assert second["problem"]["detail"].startswith("not an image")


def test_pictures_come_when_they_are_asked_for(tmp_path, film):
    asked = client(make_package(tmp_path / "package", arch="resnet18"))
    assert "heatmap_png" not in send(asked, film).json()["films"][0]
    row = send(asked, film, query="?heatmap=1&film=1").json()["films"][0]
    shown = {key: Image.open(io.BytesIO(base64.b64decode(row[key]))) for key in ("film_png", "heatmap_png")}
    assert [(picture.mode, picture.size) for picture in shown.values()] == [("L", (60, 40)), ("RGB", (60, 40))]
    assert np.array_equal(np.asarray(shown["film_png"]), np.asarray(Image.open(io.BytesIO(film))))


def test_the_decision_is_said_in_words(package, film):
    answer = Predictor.load(package).predict(film)
    told = {"label": "PNEUMONIA", "unsure": False, "logit": 0.1, "not_a_chest_film": None, "prob_pneumonia": 0.52}
    answer = type(answer)(**{**answer.__dict__, **told})
    withheld = {"label": None, "prob_pneumonia": None, "logit": None, "unsure": True}
    change = {
        "unsure": {"unsure": True},
        "other": {**withheld, "not_a_chest_film": "a leg"},
        "far": {**withheld, "unlike_training": True},
        "forced": {"unlike_training": True, "anyway": True},
    }
    changed = {key: type(answer)(**{**answer.__dict__, **value}) for key, value in change.items()}
    assert words.decision_text(answer) == "Called PNEUMONIA"
    assert words.decision_text(changed["unsure"]) == "Leave it to a person: 0.520 is not sure enough"
    assert words.decision_text(changed["other"]) == "No chest film: a leg"
    assert words.decision_text(changed["far"]) == "Unlike the films that the model learnt from"
    assert words.decision_text(changed["forced"]) == (
        "Called PNEUMONIA all the same: unlike the films that the model learnt from"
    )
    rates = {"sensitivity": ValueInInterval(0.98, 0.96, 0.99), "specificity": ValueInInterval(0.88, 0.8, 0.95)}
    assert words.worth_text(type(answer)(**{**answer.__dict__, **rates})) == (
        "Measured on test films: of 100 with pneumonia it finds 98 (96 to 99), of 100 without it calls 12 (5 to 20) ill"
    )
    unknown = type(answer)(**{**answer.__dict__, "sensitivity": ValueInInterval(None, None, None)})
    assert words.worth_text(unknown) == ""


def test_what_is_too_much_is_refused(package, film):
    small = client(package, limits=Limits(films=2, request_bytes=20_000, all_bytes=30_000))
    assert send(small, film, film).status_code == 200
    check_problem(send(small, film, film, film), 413, "2 films")
    check_problem(send(small, b"x" * 30_000), 413, "a request may have")
    check_problem(small.post("/v1/predict", content=iter([b"x" * 15_000] * 2), headers=FORM), 413, "may have")
    busy = send(client(package, limits=Limits(requests=0)), film)
    check_problem(busy, 429, "under way")
    assert busy.headers["retry-after"] == "1"
    check_problem(send(client(package, limits=Limits(all_bytes=100)), film), 429, "under way")
    check_problem(small.post("/v1/predict", json={"films": []}), 415, "multipart")
    check_problem(small.post("/v1/predict", content=b"junk", headers=FORM), 400, "")
    check_problem(small.get("/nowhere"), 404, "Not Found")
    wrong = small.get("/v1/predict")
    check_problem(wrong, 405, "Not Allowed")
    assert wrong.headers["allow"] == "POST"
    check_problem(send(small, film, query="?heatmap=perhaps"), 422, "heatmap")


FORM = {"content-type": "multipart/form-data; boundary=b"}


def test_names_and_pages_of_others_are_refused(package):
    asked = client(package, names=frozenset({"Films.Example"}))
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000", "films.example", "FILMS.EXAMPLE:80"):
        assert asked.get("/healthz", headers={"host": host}).status_code == 200
        assert asked.get("/v1/model", headers={"host": host, "origin": f"http://{host}"}).status_code == 200
    for host in ("evil.example", "[", ""):
        check_problem(asked.get("/v1/model", headers={"host": host}), 421, "name")
    for origin in ("http://evil.example", "null", "", "http://["):
        check_problem(asked.get("/v1/model", headers={"origin": origin}), 403, "pages of other servers")


def test_a_token_is_asked_for_before_anything_is_read(package, film):
    asked = client(package, token="secret")
    for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "secret"}):
        refused = send(asked, film, **headers)
        check_problem(refused, 401, "token")
        assert refused.headers["www-authenticate"] == "Bearer"
    check_problem(asked.get("/v1/model"), 401, "token")
    assert send(asked, film, authorization="Bearer secret").status_code == 200
    assert [asked.get(path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3


def test_other_machines_need_a_token(package):
    done = CliRunner().invoke(
        cli.app, ["serve", "--package", str(package), "--host", "0.0.0.0"], env={"PULMO_TOKEN": ""}
    )
    assert isinstance(done.exception, UserError)
    assert "without a token" in done.exception.message


def test_a_port_in_use_is_named(package):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(cli.app, ["serve", "--package", str(package), "--port", port])
    assert isinstance(done.exception, UserError)
    assert f"port {port}: Address already in use" in done.exception.message


def test_the_page_needs_nothing_from_elsewhere_and_runs_its_own_script_alone(package):
    response = client(package).get("/")
    assert "Not a medical device" in response.text
    assert not re.findall(r"(?:https?:)?//[a-z]|@import|\bsrc=|\bon[a-z]+=\"|style=", response.text)
    policy = response.headers["content-security-policy"]
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"


def test_uploads_stay_in_memory(package, monkeypatch):
    import tempfile

    def refuse(*_, **__):
        raise AssertionError("a file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    big = png(np.random.default_rng(0).integers(0, 256, (1500, 1500), dtype=np.uint8))
    assert len(big) > 2**20
    assert "answer" in send(client(package), big).json()["films"][0]


def test_a_film_that_memory_is_too_short_to_draw_is_a_problem_of_its_own(package, film, monkeypatch):
    def draw_none(content: bytes, side: int) -> np.ndarray:
        raise MemoryShortage(200)

    monkeypatch.setattr(service, "decode_small", draw_none)
    answered = send(client(package), film, query="?heatmap=1")
    assert answered.status_code == 200
    assert answered.json()["films"][0]["problem"]["status"] == 503


def test_prometheus_reads_counts_and_the_model(package, film):
    asked = client(package)
    label = send(asked, film, b"no film", b"none").json()["films"][0]["answer"]
    outcome = "unsure" if label["unsure"] else label["label"].lower()
    lines = asked.get("/metrics").text.splitlines()
    assert f'pulmo_films_total{{outcome="{outcome}"}} 1.0' in lines
    assert 'pulmo_films_total{outcome="problem"} 2.0' in lines
    assert "pulmo_predict_seconds_count 1.0" in lines
    assert "pulmo_model_warning 0.0" in lines
    assert any(line.startswith('pulmo_model{name="small"') and line.endswith(" 1.0") for line in lines)


class TwiceAsked:
    """A source of models by which a second thread reads the metrics while the first is reading them."""

    def __init__(self) -> None:
        self.metrics = Metrics(self)
        self.second = threading.Thread(target=self.metrics.text)
        self.inside, self.free = threading.Event(), threading.Event()

    @property
    def warning(self) -> str:
        if threading.current_thread() is not self.second:
            self.second.start()
            assert self.inside.wait(10)
        return ""

    def current(self) -> "TwiceAsked":
        return self

    @property
    def model(self) -> "TwiceAsked":
        return self

    @property
    def name(self) -> str:
        if threading.current_thread() is self.second:
            self.inside.set()
            assert self.free.wait(10)
        return "small"

    version = sha256 = "7"


def test_two_who_read_the_metrics_at_once_both_see_the_model():
    source = TwiceAsked()
    text = source.metrics.text()
    source.free.set()
    source.second.join()
    assert b'pulmo_model{name="small"' in text


def test_the_interface_describes_itself(package):
    document = client(package).get("/openapi.json").json()
    described = document["paths"]["/v1/predict"]["post"]
    example = described["responses"]["200"]["content"]["application/json"]["example"]
    assert {"answer", "decision", "worth"} <= set(example["films"][0])
    assert "multipart/form-data" in described["requestBody"]["content"]


def test_a_model_that_moved_answers_next_and_a_broken_one_changes_nothing(tmp_path, film):
    first, second = (make_package(tmp_path / name, threshold=0.5) for name in ("one", "two"))
    broken = shutil.copytree(first, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"broken")
    champion = [Place(first, "exp", "1")]
    follower = Follower(lambda: champion[0])
    asked = TestClient(make_app(follower), base_url=LOCAL)
    old = follower.current()

    champion[0] = Place(broken, "exp", "2")
    follower.look()
    answered = asked.get("/readyz").json()
    assert answered == {"status": "warning", "warning": "exp 2 cannot be loaded, exp, version 1, goes on serving"}
    assert send(asked, film).json()["films"][0]["answer"]["model"]["version"] == "1"

    champion[0] = Place(first, "exp", "1")
    follower.look()
    assert asked.get("/readyz").json() == {"status": "ready"}, "the champion went back to the model that serves"

    champion[0] = Place(second, "exp", "3")
    follower.look()
    assert asked.get("/readyz").json() == {"status": "ready"}
    assert asked.get("/v1/model").json()["model"]["version"] == "3"
    assert send(asked, film).json()["films"][0]["answer"]["model"]["version"] == "3"
    assert old.predict(film).model.version == "1", "a request under way ends with the model it began with"


@pytest.fixture
def address(package):
    """A server that looks for models all the time and gives a request one second."""
    with serving(package, seconds=1, limits=Limits(seconds=1)) as address:
        yield address


def test_slow_requests_end_and_many_at_once_are_answered(address, film):
    url = f"http://{address[0]}:{address[1]}"
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nContent-Type: {FORM['content-type']}"
    with socket.create_connection(address) as slow:
        slow.sendall(f"{head}\r\n\r\n--b".encode())
        answers: list[httpx.Response] = []
        asking = [
            threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/v1/predict", files={"films": film})))
            for _ in range(50)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len({answer.json()["films"][0]["answer"]["prob_pneumonia"] for answer in answers}) == 1
        slow.settimeout(10)
        assert b"408 Request Timeout" in slow.recv(4096)


def test_no_answer_waits_for_the_receipt_of_its_head(address):
    times = []
    with httpx.Client() as client:  # one connection for all
        for _ in range(30):
            began = time.monotonic()
            client.get(f"http://{address[0]}:{address[1]}/healthz")
            times.append(time.monotonic() - began)
    assert min(times[10:]) < 0.035, "which a client may keep back for 40 ms"


def test_clients_that_keep_the_server_waiting_lose_their_connection(address, film):
    half, later, large = (socket.create_connection(address) for _ in range(3))
    half.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
    later.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
    large.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 50_000)
    began = time.monotonic()
    for connection, expected in ((half, b""), (later, b"200 OK"), (large, b"400 Bad Request")):
        connection.settimeout(10)
        assert expected in read_all(connection)
    assert 0.5 < time.monotonic() - began < 8
    assert httpx.get(f"http://{address[0]}:{address[1]}/healthz").json() == {"status": "alive"}


def send_for(connection: socket.socket, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(BlockingIOError):
            connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        time.sleep(0.01)


def test_who_does_not_read_an_answer_makes_nobody_wait(address):
    url = f"http://{address[0]}:{address[1]}"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(address)
        deaf.setblocking(False)
        with pytest.raises(OSError, match=r"reset|Broken"):
            send_for(deaf, 10)
        assert httpx.get(f"{url}/healthz").json() == {"status": "alive"}


def test_a_request_that_breaks_off_in_the_middle_is_refused_and_fills_no_log(address, caplog, capfd):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    )
    for host in [b"localhost", b"evil.example"] * 6:  # more than are let in at once without a length
        with socket.create_connection(address) as broken:
            broken.sendall(head + b"Host: " + host + b"\r\n\r\n5\r\n--b\r\n\r\nno chunk\r\n")
            broken.settimeout(10)
            assert read_all(broken).startswith(b"HTTP/1.1 400 Bad Request")
    noise = httpx.post(f"http://{address[0]}:{address[1]}/v1/predict", content=b"--b\0", headers=FORM)
    check_problem(noise, 400, "multipart")
    unsized = httpx.post(f"http://{address[0]}:{address[1]}/v1/predict", content=iter([b"--b"]), headers=FORM)
    check_problem(unsized, 400, "")
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def read_all(connection: socket.socket) -> bytes:
    content = b""
    try:
        while part := connection.recv(65536):
            content += part
    except ConnectionResetError:
        pass
    return content
