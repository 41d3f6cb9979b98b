import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_package import make_package
from typer.testing import CliRunner

from pulmo import Predictor, cli
from pulmo.answering.champion import Place
from pulmo.answering.follow import Follower
from pulmo.answering.served import Served
from pulmo.answering.server import make_app
from pulmo.base.errors import UserError
from pulmo.evaluation.novelty import fit_familiarity
from pulmo.package.familiarity import Familiarity
from pulmo.package.inference import Network
from pulmo.package.storage import ONNX

SIDE = 64


def draw(count: int, seed: int) -> np.ndarray:
    """Round shadows, which play the films of home."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    middles = np.random.default_rng(seed).uniform(0.3, 0.7, (count, 2))
    return np.stack([220 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.1) for a, b in middles]).astype(np.uint8)


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Familiarity:
    network = Network((make_package(tmp_path_factory.mktemp("plain") / "package") / ONNX).read_bytes())
    found = fit_familiarity(network, draw(140, 0), range(100), range(100, 140))
    assert found
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory, known) -> Path:
    return make_package(tmp_path_factory.mktemp("model") / "package", known)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(draw(1, 0)[0]).save(folder / "home.png")
    Image.fromarray(noise[..., 0]).save(folder / "noise.png")
    Image.fromarray(noise).save(folder / "photograph.png")
    return folder


def ask(package: Path, *arguments: object, code: int):
    command = ["predict", "--package", str(package), *(str(argument) for argument in arguments)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == code, done.output
    return done


def test_an_external_report_says_how_many_films_would_be_refused(tmp_path, known, films):
    labelled = tmp_path / "hospital"
    for place, picture in enumerate(draw(6, 0)):
        folder = labelled / ("NORMAL" if place % 2 else "PNEUMONIA")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{place}.png")
    shutil.copy(films / "noise.png", labelled / "NORMAL")
    shutil.copy(films / "photograph.png", labelled / "PNEUMONIA")
    package = make_package(tmp_path / "package", known, metrics={"test": {}})
    asked = ["evaluate", "--films", labelled, "--package", package, "--out", tmp_path / "out"]
    done = CliRunner().invoke(cli.app, [str(argument) for argument in asked], catch_exceptions=False)
    assert "the model refuses 0.250 (" in done.stdout
    table = pd.read_csv(tmp_path / "out/predictions.csv", keep_default_na=False).set_index("path").refused
    assert table["NORMAL/noise.png"] == "unlike"
    assert table["PNEUMONIA/photograph.png"] == "no chest film: a picture in colour"
    assert (table == "").sum() == 6
    content = json.loads((tmp_path / "out/evaluation.json").read_text())["external"]
    assert content["refused"]["value"] == 0.25
    assert content["answers"]["coverage"]["value"] <= min(0.75, content["selective"]["coverage"]["value"])
    page = (tmp_path / "out/report.md").read_text()
    assert "the model refuses **0.250 (" in page
    (tmp_path / "out/notes.txt").write_text("what we thought of it")
    again = CliRunner().invoke(cli.app, [str(argument) for argument in asked])
    assert isinstance(again.exception, UserError)
    assert again.exception.message.endswith(
        "out holds more than an earlier report, which this one would replace: notes.txt"
    )
    assert (tmp_path / "out/notes.txt").exists()


def test_foreign_films_are_refused_with_their_reason_and_the_others_answered(package, films):
    done = ask(package, "--json", films, code=1)
    home, noise, photograph = (json.loads(line) for line in done.stdout.splitlines())
    assert home["label"] in ("NORMAL", "PNEUMONIA")
    assert (home["not_a_chest_film"], home["unlike_training"], home["error"]) == (None, False, None)
    assert [noise[key] for key in ("label", "prob_pneumonia", "logit", "unsure")] == [None, None, None, True]
    assert (noise["not_a_chest_film"], noise["unlike_training"]) == (None, True)
    assert noise["error"] == "refused: unlike the films that the model learnt from"
    assert photograph["not_a_chest_film"] == "a picture in colour"
    assert photograph["error"] == "refused: no chest film: a picture in colour"
    assert f"error: {films / 'noise.png'}: refused" in done.stderr


def test_the_reason_is_in_the_csv_and_the_label_is_not(package, films):
    home, noise, photograph = csv.DictReader(io.StringIO(ask(package, "--csv", films, code=1).stdout))
    assert home["label"]
    assert (noise["label"], noise["prob_pneumonia"], noise["logit"], noise["unlike_training"]) == ("", "", "", "true")
    assert (photograph["label"], photograph["not_a_chest_film"]) == ("", "a picture in colour")


def test_an_answer_may_be_forced_and_is_marked(package, films):
    done = ask(package, "--anyway", "--csv", films, code=0)
    home, noise, photograph = csv.DictReader(io.StringIO(done.stdout))
    assert [row["unlike_training"] for row in (home, noise, photograph)][:2] == ["false", "true"]
    assert photograph["not_a_chest_film"] == "a picture in colour"
    assert all(row["label"] and not row["error"] for row in (home, noise, photograph))
    assert [row["anyway"] for row in (home, noise, photograph)] == ["false", "true", "true"]
    lines = ask(package, "--anyway", films / "home.png", films / "noise.png", code=0).stdout.splitlines()
    assert "unlike" not in lines[0]
    assert "(unlike the films that the model learnt from)" in lines[1]


def test_no_heat_map_is_drawn_of_a_refused_film(package, films, tmp_path):
    ask(package, "--heatmap", tmp_path / "maps", films, code=1)
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["home-heatmap.png"]


def test_the_answer_itself_says_so_in_python(package, films):
    predictor = Predictor.load(package)
    home, noise, photograph = predictor.predict([films / f"{name}.png" for name in ("home", "noise", "photograph")])
    assert (home.refusal, home.unlike_training) == ("", False)
    assert noise.refusal == "unlike the films that the model learnt from"
    assert photograph.refusal == "no chest film: a picture in colour"
    assert home.label
    assert (noise.label, noise.prob_pneumonia, noise.logit, photograph.label) == (None, None, None, None)
    forced = predictor.predict(films / "noise.png", anyway=True)
    assert forced.label in ("NORMAL", "PNEUMONIA")
    assert (forced.anyway, forced.refusal) == (True, noise.refusal)
    assert not predictor.predict(films / "home.png", anyway=True).anyway


@pytest.mark.parametrize("anyway", [False, True])
def test_rest_and_mlflow_follow_the_same_rule(package, films, anyway):
    contents = [(films / f"{name}.png").read_bytes() for name in ("home", "noise", "photograph")]
    expected = [answer.to_dict() for answer in Predictor.load_folder(package, "m", "1").predict(contents, anyway)]
    served = Served(Predictor.load_folder(package, "m", "1"))
    assert served.predict({"film": contents}, {"anyway": anyway} if anyway else None) == expected
    table = served.predict(pd.DataFrame({"film": contents}), {"anyway": anyway})
    assert table.to_dict("records") == expected, "what is not said is None, never NaN"
    page = TestClient(make_app(Follower(lambda: Place(package, "m", "1"))), base_url="http://127.0.0.1")
    parts = [("films", ("film", content)) for content in contents]
    rows = page.post(f"/v1/predict?film=1&heatmap=1&anyway={int(anyway)}", files=parts).json()["films"]
    assert [row["answer"] for row in rows] == json.loads(json.dumps(expected))
    assert all(row["film_png"] for row in rows)
    counts = page.get("/metrics").text
    assert all(f'{{outcome="{kind}"}} 1.0' in counts for kind in ("unlike_training", "no_chest_film"))
    refused = "called .* all the same: " if anyway else ""
    assert re.fullmatch(f"{refused}unlike the films that the model learnt from", rows[1]["decision"], re.IGNORECASE)


def test_a_real_chest_film_of_another_kind_is_no_other_picture_and_has_no_label_of_itself(package):
    store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
    adult = Path(next(iter(store.__path__))) / "data" / "RG1_UNCR.dcm"
    answer, forced = (Predictor.load(package).predict(adult, anyway=anyway) for anyway in (False, True))
    assert (answer.not_a_chest_film, answer.unlike_training, answer.label) == (None, True, None)
    assert forced.label in ("NORMAL", "PNEUMONIA")


def test_a_package_that_knows_no_distance_still_refuses_colour(films, tmp_path):
    plain = make_package(tmp_path / "package")
    noise, photograph = Predictor.load(plain).predict([films / "noise.png", films / "photograph.png"])
    assert (noise.refusal, photograph.refusal) == ("", "no chest film: a picture in colour")
