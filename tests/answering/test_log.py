import io
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from film_files import GRAY, encode
from PIL import Image
from small_package import make_package

from pulmo.answering.champion import Place
from pulmo.answering.follow import Follower
from pulmo.answering.log import AnswerLog
from pulmo.answering.server import make_app
from pulmo.base.errors import UserError


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package")


def client(package: Path, log: AnswerLog) -> TestClient:
    return TestClient(make_app(Follower(lambda: Place(package, "small", "7")), log=log), base_url="http://127.0.0.1")


def colour() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_each_answer_is_a_line_without_names(package, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("earlier\n")
    asked = client(package, AnswerLog(path))
    films = [encode(GRAY, "PNG"), colour(), b"no film"]
    parts = [("films", (f"DOE^JOHN-{place}.png", content)) for place, content in enumerate(films)]
    rows = asked.post("/v1/predict", files=parts).json()["films"]
    earlier, *lines = path.read_text().splitlines()
    assert earlier == "earlier"
    first, second = (json.loads(line) for line in lines)
    assert "DOE" not in path.read_text()
    for line, row in zip((first, second), rows, strict=False):
        for key in ("label", "prob_pneumonia", "logit", "unsure", "unlike_training", "anyway"):
            assert line["answer"][key] == row["answer"][key]
        assert line["model"] == row["answer"]["model"]
        assert len(line["film"]["seen_sha256"]) == 64
    assert (first["film"]["height"], first["film"]["width"]) == GRAY.shape
    assert [line["answer"]["not_a_chest_film"] for line in (first, second)] == [False, True]
    assert second["answer"]["label"] is None
    assert first["time"] <= second["time"]
    asked.post("/v1/predict", files=parts[:1])
    again = json.loads(path.read_text().splitlines()[-1])
    assert again["film"] == first["film"]


def test_a_log_that_cannot_be_written_is_said_at_once_or_costs_no_answer(package, tmp_path, capfd):
    with pytest.raises(UserError, match="--log"):
        AnswerLog(tmp_path)
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full device")
    asked = client(package, AnswerLog(Path("/dev/full")))
    for _ in range(2):
        assert asked.post("/v1/predict", files={"films": encode(GRAY, "PNG")}).json()["films"][0]["answer"]
    assert capfd.readouterr().err.count("warning: --log") == 1
