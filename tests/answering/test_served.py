import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import packages_distributions
from pathlib import Path

import pandas as pd
import pytest
from running_app import serving
from small_project import ROOT, running_server

from pulmo.answering.predictor import Answer, Predictor
from pulmo.base.code import PACKAGE, imported_names, reached_modules
from pulmo.images.film import ImageError
from pulmo.tracking.logged_models import REQUIREMENTS
from pulmo.tracking.store import EXPERIMENT, store_uri


@pytest.fixture(scope="module")
def films(project: Path) -> list[Path]:
    table = pd.read_csv(project / "reports/predictions.csv").query("split == 'test'").groupby("label").head(2)
    return [project / "data/raw" / path for path in table.path]


@pytest.fixture(scope="module")
def expected(project: Path, films: list[Path]) -> list[Answer]:
    return Predictor.load(project / "models/package").predict(films)


def model_uri(project: Path) -> str:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store_uri(project))
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    (model,) = run.outputs.model_outputs
    return f"models:/{model.model_id}"


def assert_answers(rows: list[dict], expected: list[Answer]) -> None:
    assert [row["label"] for row in rows] == [answer.label for answer in expected]
    assert [row["threshold"] for row in rows] == [answer.threshold for answer in expected]
    probabilities = [row["prob_pneumonia"] for row in rows]
    assert probabilities == pytest.approx([answer.prob_pneumonia for answer in expected], abs=1e-6)
    names = ["label", "prob_pneumonia", "threshold", "sensitivity", "specificity", "unsure", "not_a_chest_film"]
    assert [list(row) for row in rows] == [[*names, "unlike_training", "note", "logit", "model", "anyway"]] * len(
        expected
    )
    assert [row["sensitivity"]["low"] for row in rows] == [answer.sensitivity.low for answer in expected]
    assert [row["model"]["sha256"] for row in rows] == [answer.model.sha256 for answer in expected]


@pytest.mark.slow
def test_the_loaded_model_answers_like_the_package(project, films, expected, tmp_path, monkeypatch):
    import mlflow

    uri = model_uri(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(project))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    model = mlflow.pyfunc.load_model(uri)
    answers = model.predict(pd.DataFrame({"film": [film.read_bytes() for film in films]}))
    assert_answers(answers.to_dict("records"), expected)
    assert len(model.predict(model.input_example)) == 1
    assert model.metadata.get_input_schema().input_names() == ["film"]


@pytest.mark.slow
def test_mlflow_serves_it_over_http(project, films, expected, tmp_path):
    command = ("mlflow", "models", "serve", "--model-uri", model_uri(project), "--env-manager", "local")
    options = ("--host", "127.0.0.1", "--port", "PORT")
    store = store_uri(project)
    with running_server(*command, *options, ready="ping", folder=tmp_path, MLFLOW_TRACKING_URI=store) as address:
        encoded = [[base64.b64encode(film.read_bytes()).decode()] for film in films]
        assert_answers(ask(address, split(encoded))["predictions"], expected)
        texts = [row[0] for row in encoded]
        for body in ({"inputs": {"film": texts}}, {"inputs": [{"film": text} for text in texts]}):
            assert_answers(ask(address, body)["predictions"], expected)
        if shutil.which("curl"):
            assert_answers(json.loads(type_curl("invocations", address, films[0]))["predictions"], expected[:1])
        refused = [[texts[0]], [base64.b64encode(b"no film").decode()]]
        bodies = {"film 2: not an image": split(refused), "film 1: not an image": {"inputs": {"film": ["no film"]}}}
        for reason, body in [*bodies.items(), ("missing inputs ['film']", {"inputs": {"image": texts}})]:
            with pytest.raises(urllib.error.HTTPError) as end:
                ask(address, body)
            assert end.value.code == 400
            answer = end.value.read().decode()
            assert reason in answer
            assert "Traceback" not in answer
            assert ".py" not in answer
            assert str(tmp_path.parent) not in answer


def split(rows: list[list[str]]) -> dict:
    return {"dataframe_split": {"columns": ["film"], "data": rows}}


def ask(address: str, body: dict) -> dict:
    body = json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("curl"),
    reason="curl is not installed, and the README's curl lines are typed here; .ci/run installs it where it may",
)
def test_curl_asks_pulmo_serve_as_the_readme_says(project, films, expected):
    with serving(project / "models/package") as (host, port):
        address = f"http://{host}:{port}"
        (row,) = json.loads(type_curl("/v1/predict", address, films[0]))["films"]
        assert_answers([row["answer"]], expected[:1])
        outputs = json.loads(type_curl("/v2/models", address, films[0]))["outputs"]
        assert_answers([json.loads(outputs[1]["data"][0])["answer"]], expected[:1])
        assert outputs[0]["data"] == [expected[0].label]


def type_curl(path: str, address: str, film: Path) -> str:
    """What a curl line of the README prints, asked of another address about another film."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("    $ curl") and path in line]
    line = re.sub(r"http://127\.0\.0\.1:\d+", address, line.removeprefix("    $ "))
    line = re.sub(r"films=@\S+", f"films=@{film}", line)
    encoded = base64.b64encode(film.read_bytes()).decode()
    done = subprocess.run(["bash", "-c", line], env={**os.environ, "FILM": encoded}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_no_film_is_named(project, films):
    predictor = Predictor.load(project / "models/package")
    with pytest.raises(ImageError, match=r"^film 2: not an image"):
        predictor.predict([films[0].read_bytes(), b"no film"])
    with pytest.raises(ImageError, match=r"model\.json: not an image"):
        predictor.predict([films[0], project / "models/package/model.json"])
    assert predictor.predict([]) == []


def test_the_requirements_name_all_that_the_model_imports():
    served = PACKAGE / "answering" / "served.py"
    names = {name.split(".")[0] for file in {served} | reached_modules(served) for name in imported_names(file)}
    owners = packages_distributions()
    # of extras, for addresses and for bf16: a served model gets contents, and answers in fp32
    optional = {"s3fs", "openvino"}
    distributions = {owners[name][0].lower() for name in names - set(sys.stdlib_module_names) - {"pulmo"} - optional}
    assert distributions <= set(REQUIREMENTS)
    assert not {"torch", "torchvision", "lightning"} & {*distributions, *REQUIREMENTS}
