"""The five stages on a small phantom set: what they write, and what they say when what they find is spoiled."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score
from small_project import copy_project, permissions_bind, run_stage, write_params

from pulmo.answering.predictor import Predictor
from pulmo.base.files import read_json
from pulmo.base.params_file import flatten
from pulmo.evaluation.probes.renderings import score_renderings
from pulmo.films.rows.processed import open_images
from pulmo.model.classifier import load_classifier
from pulmo.tracking.store import EXPERIMENT, store_uri

pytestmark = pytest.mark.slow


def test_no_patient_crosses(project):
    assert read_json(project / "reports/leakage.json")["patients_across_splits"] == []
    splits = pd.read_csv(project / "data/splits.csv")
    assert (splits.groupby("patient").split.nunique() == 1).all()


def test_metrics_follow_from_the_kept_predictions(project):
    films = pd.read_csv(project / "reports/predictions.csv")
    metrics = read_json(project / "reports/metrics.json")
    point = read_json(project / "models/package/model.json")
    for split in ("val", "test"):
        part = films[films.split == split]
        assert metrics[split]["auroc"] == pytest.approx(roc_auc_score(part.label, part.logit))
    tn, _, fn, tp = confusion_matrix(part.label, part.prob_pneumonia >= point["threshold"]).ravel()
    assert metrics["test"]["accuracy"] == pytest.approx((tp + tn) / len(part))
    assert metrics["test"]["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert part.prob_pneumonia.to_numpy() == pytest.approx(1 / (1 + np.exp(-part.logit / point["temperature"])))


def test_one_film_gets_the_answer_that_was_evaluated(project):
    films = pd.read_csv(project / "reports/predictions.csv").query("split == 'test'").head(5)
    predictor = Predictor.load(project / "models/package")
    answers = predictor.predict([project / "data/raw" / path for path in films.path])
    assert [answer.prob_pneumonia for answer in answers] == pytest.approx(films.prob_pneumonia.tolist(), abs=1e-4)
    one = predictor.predict([(project / "data/raw" / films.path.iloc[0]).read_bytes()])[0]
    assert one.prob_pneumonia == pytest.approx(answers[0].prob_pneumonia, abs=1e-6)
    assert one.label == ("PNEUMONIA" if one.prob_pneumonia >= one.threshold else "NORMAL")


def test_train_and_evaluate_are_one_finished_run(project):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=store_uri(project))
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test.auroc"] == read_json(project / "reports/metrics.json")["test"]["auroc"]
    assert len(client.get_metric_history(run.info.run_id, "epoch/val_auroc")) == 2
    held = {path.name for path in (project / "mlartifacts").rglob("*") if path.is_file()}
    assert {"weights.safetensors", "model.json", "roc.png", "evaluation.json", "predictions.csv"} <= held


def test_a_threshold_of_rendered_films_is_chosen_on_all_renderings(project, tmp_path):
    folder = copy_project(project, tmp_path / "rendered")
    write_params(
        folder, {"evaluate": {"operating_point": "youden_rendered", "rendered_films": 12, "robustness_films": 0}}
    )
    run_stage("evaluate", folder)
    model, films = read_json(folder / "models/package/model.json"), pd.read_csv(folder / "reports/predictions.csv")
    assert model["locked"]["operating_point"]["policy"] == "youden_rendered"
    val = films[films.split == "val"]
    package = load_classifier(folder / "models/package")
    images = open_images(folder / "data/processed/images.npy")
    index = pd.read_csv(folder / "data/processed/index.csv")
    rows = val.merge(index, on="path").assign(target=val.label.to_numpy())
    renderings = score_renderings(package, rows, images, 64, 12, 42)
    assert renderings.groupby("rendering").size().tolist() == [12] * 10
    each = [roc_auc_score(part.label, part.logit) for _, part in renderings.groupby("rendering")]
    assert read_json(folder / "reports/metrics.json")["val"]["auroc_rendered"] == pytest.approx(np.mean(each), abs=0.01)

    probability = 1 / (1 + np.exp(-renderings.logit / model["temperature"]))

    def mean_index(threshold):
        called = probability >= threshold - 1e-9  # the film at the threshold is called, whatever the rounding
        right = (called == (renderings.label == 1)).groupby([renderings.rendering, renderings.label]).mean()
        return right.groupby("rendering").sum().mean()

    assert mean_index(model["threshold"]) == pytest.approx(max(map(mean_index, np.unique(probability))), abs=0.005)


def test_renderings_of_one_film_are_undefined_and_told_nowhere(project, tmp_path):
    folder = copy_project(project, tmp_path / "one")
    assert "on the mean of 10 renderings" in (project / "reports/model_card.md").read_text(encoding="utf-8")
    write_params(folder, {"evaluate": {"rendered_films": 1, "robustness_films": 0}})
    run_stage("evaluate", folder)
    assert set(read_json(folder / "reports/metrics.json")["val"]) == {"auroc"}
    assert "renderings" not in (folder / "reports/model_card.md").read_text(encoding="utf-8")


def test_every_picture_is_one(project):
    pictures = list((project / "reports/plots").glob("*.png"))
    assert {"roc", "confusion", "training", "predictions", "class_balance", "reliability", "samples"} <= {
        picture.stem for picture in pictures
    }
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_evaluating_again_gives_the_same_bytes(project, tmp_path):
    again = copy_project(project, tmp_path / "again")
    for path in ("models/package", "reports/plots"):
        shutil.rmtree(again / path)
    run_stage("evaluate", again)
    for name in ("reports/metrics.json", "reports/evaluation.json", "reports/predictions.csv"):
        assert (again / name).read_bytes() == (project / name).read_bytes(), name


def edit(path: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / path).write_text(change((folder / path).read_text()))

    return spoil


def cut(path: str, keep: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / path).write_bytes((folder / path).read_bytes()[:keep])

    return spoil


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def first_film(folder: Path) -> Path:
    return sorted((folder / "data/raw").rglob("*.jpeg"))[0]


def spoil_film(content: bytes) -> Callable[[Path], None]:
    return lambda folder: first_film(folder).write_bytes(content)


SPOILED = [
    ("split", edit("params.yaml", lambda text: text.replace("group_by", "groupby")), "unknown key split.groupby"),
    ("split", remove("params.yaml"), "run from the root of the project"),
    ("preprocess", spoil_film(b""), r"IM-.*empty"),
    ("preprocess", spoil_film(b"<html>404</html>"), "not an image|cannot be decoded|no image"),
    ("preprocess", lambda folder: first_film(folder).unlink(), r"IM-"),
    ("train", remove("data/processed/images.npy"), r"images\.npy.*\n\nhint: run `dvc repro preprocess"),
    (
        "train",
        cut("data/processed/images.npy", 5000),
        r"images\.npy is not a whole NumPy array.*\n\nhint: run `dvc repro preprocess",
    ),
    ("train", edit("params.yaml", lambda text: text.replace("squeezenet1_1", "squeezenet9")), "train.arch"),
    ("train", edit("params.yaml", lambda text: text.replace("weights: none", "weights: x.pth")), r"x\.pth"),
    ("train", edit("params.yaml", lambda text: text.replace("freeze: none", "freeze: layer9")), "train.freeze"),
    ("train", edit("data/splits.csv", lambda text: text.replace(",val,", ",train,")), "no film in split val"),
    ("evaluate", remove("models/trained/model.json"), r"model\.json not found"),
    ("evaluate", cut("models/trained/model.json", 50), r"model\.json is not valid JSON"),
    ("evaluate", cut("models/trained/weights.safetensors", 5000), r"weights\.safetensors is damaged"),
    ("evaluate", remove("models/trained/weights.safetensors"), "the package is incomplete"),
    ("evaluate", edit("models/trained/model.json", lambda text: text.replace('"head": 2', '"head": 7')), "head"),
]


@pytest.mark.parametrize(("stage", "spoil", "message"), SPOILED)
def test_what_is_spoiled_is_one_clear_line(project, tmp_path, stage, spoil, message):
    folder = copy_project(project, tmp_path / "spoiled")
    spoil(folder)
    with pytest.raises(SystemExit, match=f"(?s){message}") as end:
        run_stage(stage, folder)
    assert str(end.value.code).startswith("error: ")
    if stage != "preprocess":  # which lists the films it rejected
        assert "\n" not in str(end.value.code).partition("\n\nhint: ")[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(("stage", "victim"), [("split", "splits.csv"), ("preprocess", "images.npy")])
def test_a_failing_disk_is_one_clear_line_and_leaves_no_half(project, tmp_path, stage, victim, number, monkeypatch):
    folder = copy_project(project, tmp_path / "failing")
    (folder / "data" / "processed" / "index.csv").unlink()
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if Path(target).name == victim:
            raise OSError(number, os.strerror(number), str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(SystemExit, match=f"{victim}.*{os.strerror(number)}"):
        run_stage(stage, folder)
    assert not list(folder.rglob("*.part"))
    assert not (folder / "data/processed/index.csv").exists()


@permissions_bind
def test_a_read_only_folder_is_one_clear_line(project, tmp_path):
    folder = copy_project(project, tmp_path / "locked")
    (folder / "data").chmod(0o500)
    with pytest.raises(SystemExit, match=r"Permission denied\n\nhint: check free space and permissions"):
        run_stage("split", folder)
    (folder / "data").chmod(0o700)


def test_a_file_where_a_folder_should_be_is_one_clear_line(project, tmp_path):
    folder = copy_project(project, tmp_path / "blocked")
    shutil.rmtree(folder / "reports")
    (folder / "reports").write_text("not a folder")
    with pytest.raises(SystemExit, match=r"error: .*reports"):
        run_stage("split", folder)


def test_metrics_json_stays_small(project):
    flat = flatten(json.loads((project / "reports/metrics.json").read_text()))
    assert len(flat) == 7
    assert all(0 <= value <= 1 for value in flat.values())
