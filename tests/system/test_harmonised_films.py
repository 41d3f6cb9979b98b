"""A film is brought to the acquisition of train by the same code wherever it is scored."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_package import make_package
from small_project import run_stage, write_params

from pulmo.answering.predictor import Predictor
from pulmo.answering.served import Served
from pulmo.answering.service import Service, Upload, Wishes
from pulmo.evaluation.external import evaluate_folder
from pulmo.films.rows.processed import open_images
from pulmo.metrics.bootstrap import Resampling
from pulmo.model.classifier import load_classifier
from pulmo.package.harmony import Harmony, read_harmony


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmonised")
    write_params(folder, {"data": {"phantom": {"films": 60}}, "preprocess": {"harmonise": "both"}})
    for stage in ("download", "split", "preprocess"):
        run_stage(stage, folder)
    return folder


@pytest.fixture(scope="module")
def package(folder):
    harmony = read_harmony(folder / "data/processed/harmony.json")
    return make_package(folder / "package", size=48, fit="squash", harmony=harmony, metrics={"test": {}})


def test_every_way_to_an_answer_sees_the_pixels_of_the_stage(folder, package):
    raw, images = folder / "data/raw", open_images(folder / "data/processed/images.npy")
    index = pd.read_csv(folder / "data/processed/index.csv")
    predictor = Predictor.load(package)
    expected = predictor.network.score(np.asarray(images)).astype(float)
    for row, path in zip(index.row, index.path, strict=True):
        np.testing.assert_array_equal(predictor.read(raw / path).pixels, images[row], path)
    plain = Predictor.load(make_package(folder / "plain", size=48, fit="squash"))
    assert (plain.read(raw / index.path[0]).pixels != images[0]).mean() > 0.5, "the stage changed the film"

    contents = [(raw / path).read_bytes() for path in index.path]
    served = [answer["logit"] for answer in Served(predictor).predict({"film": contents}, {"anyway": True})]
    np.testing.assert_allclose(served, expected, atol=1e-5)
    uploads = [Upload(path, content) for path, content in zip(index.path, contents, strict=True)]
    results = Service(SimpleNamespace(current=lambda: predictor)).answer(uploads, Wishes(anyway=True))
    np.testing.assert_allclose([result["answer"]["logit"] for result in results], expected, atol=1e-5)

    evaluate_folder(package, {"path": raw}, folder / "external", Resampling(100))
    external = pd.read_csv(folder / "external/predictions.csv").merge(index, on="path")
    assert len(external) == len(index)
    np.testing.assert_allclose(external.logit, expected[external.row], atol=1e-4)


def test_training_puts_the_acquisition_into_the_package(folder):
    write_params(folder, {"preprocess": {"harmonise": "both"}, "train": {"epochs": 1}})
    run_stage("train", folder)
    trained = load_classifier(folder / "models/trained").info.harmony
    assert trained == read_harmony(folder / "data/processed/harmony.json") != Harmony()
