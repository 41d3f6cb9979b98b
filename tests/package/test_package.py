import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.model.classifier import load_classifier
from pulmo.model.networks import build_model
from pulmo.model.scoring import Preparation, predict_logits
from pulmo.model.weights import to_arrays
from pulmo.package.info import CARD, PackageInfo, read_info
from pulmo.package.storage import FILMS, WEIGHTS, save_package

INFO = PackageInfo(arch="squeezenet1_1", head=2, size=32, fit="squash")
LOCKED = {
    "temperature": {"value": 1.5, "note": ""},
    "operating_point": {"policy": "youden", "threshold": 0.25, "low": 0.2, "high": 0.4},
    "abstention": {"target_error": 0.02, "low": 0.1, "high": 0.5, "reached": True},
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("squeezenet1_1", "none", 2, 32)


@pytest.fixture
def folder(tmp_path, model):
    save_package(tmp_path / "package", to_arrays(model), INFO)
    return tmp_path / "package"


def edit(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def test_a_loaded_package_predicts_what_the_saved_model_did(folder, model):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    package = load_classifier(folder)
    assert not package.network.training
    expected = predict_logits(model, images, device="cpu", precision="fp32")
    assert np.array_equal(predict_logits(package.network, images, device="cpu", precision="fp32"), expected)
    assert np.ptp(expected) > 0


def test_a_package_scores_as_its_card_says(folder, model):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    edit(folder, mean=[0.3, 0.4, 0.5], tta_views=3)
    expected = predict_logits(model, images, 64, "cpu", "fp32", Preparation((0.3, 0.4, 0.5), tta_views=3))
    assert np.array_equal(load_classifier(folder).score(images, device="cpu", precision="fp32"), expected)
    one_view = predict_logits(model, images, 64, "cpu", "fp32", Preparation((0.3, 0.4, 0.5)))
    assert not np.allclose(expected, one_view, atol=1e-4)


def test_the_card_round_trips(tmp_path, model):
    info = INFO.with_locked(LOCKED).model_copy(update={"metrics": {"auroc": 0.9}})
    saved = save_package(tmp_path / "package", to_arrays(model), info)
    assert saved.weights_sha256 == sha256_file(tmp_path / "package" / WEIGHTS)
    assert load_classifier(tmp_path / "package").info == saved
    assert read_info(tmp_path / "package").threshold == 0.25
    assert read_info(tmp_path / "package").locked == LOCKED


def test_a_threshold_that_was_edited_is_seen(tmp_path, model):
    save_package(tmp_path / "package", to_arrays(model), INFO.with_locked(LOCKED))
    edit(tmp_path / "package", threshold=0.5)
    with pytest.raises(UserError, match="differ from those of locked"):
        read_info(tmp_path / "package")


def test_a_package_knows_the_films_it_was_made_with(tmp_path, model, folder):
    known = {"b" * 64: "train", "a" * 64: "test"}
    save_package(tmp_path / "again", to_arrays(model), INFO, known)
    assert load_classifier(tmp_path / "again").films == known
    assert load_classifier(folder).films == {}, "a package without the list loads as before"
    (tmp_path / "again" / FILMS).write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"films\.csv does not have the columns"):
        load_classifier(tmp_path / "again")


def test_the_same_model_gives_the_same_bytes(tmp_path, model, folder):
    wide = model.to(memory_format=torch.channels_last)
    save_package(tmp_path / "again", to_arrays(wide), INFO)
    for name in (WEIGHTS, CARD):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_failure_leaves_the_earlier_package(folder, model, monkeypatch):
    before, write = (folder / WEIGHTS).read_bytes(), Path.write_bytes

    def fail(path, content):
        if CARD in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        save_package(folder, {name: value + 1 for name, value in to_arrays(model).items()}, INFO)
    assert (folder / WEIGHTS).read_bytes() == before
    assert [file.name for file in folder.parent.iterdir()] == ["package"]


def test_no_pickle_in_the_package(folder):
    assert {file.name for file in folder.iterdir()} == {WEIGHTS, CARD}
    assert set(load_file(folder / WEIGHTS))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CARD).unlink(), "model.json not found: .* is no model package"),
        (lambda folder: (folder / WEIGHTS).unlink(), "weights.safetensors not found: the package is incomplete"),
        (lambda folder: (folder / CARD).write_text("{"), "model.json is not valid JSON"),
        (lambda folder: (folder / CARD).write_text("[]"), "model.json: content: "),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 99), "weights.safetensors is damaged"),
        (lambda folder: edit(folder, weights_sha256="0" * 64), "weights.safetensors is damaged or not the one"),
        (lambda folder: edit(folder, colour="red"), "model.json: colour: "),
        (lambda folder: edit(folder, format=2), "model.json: format: "),
        (lambda folder: edit(folder, threshold=1.5), "model.json: threshold: "),
        (lambda folder: edit(folder, temperature=0), "model.json: temperature: "),
        (lambda folder: edit(folder, mean=[0.1, 0.2]), "model.json: mean"),
        (lambda folder: edit(folder, size="large"), "model.json: size: "),
        (lambda folder: edit(folder, size=10**9), "model.json: size: "),
        (lambda folder: edit(folder, std=[0.2, 0, 0.2]), r"model.json: std\.1: "),
        (lambda folder: edit(folder, mean=[0.2, float("nan"), 0.2]), r"model.json: mean\.1: "),
        (lambda folder: edit(folder, temperature=float("inf")), "model.json: temperature: "),
        (lambda folder: edit(folder, threshold=float("nan")), "model.json: threshold: "),
        (lambda folder: edit(folder, classes=["PNEUMONIA", "NORMAL"]), r"model.json: classes\.0: "),
        (lambda folder: edit(folder, classes=["NORMAL", "\033[2JPNEUMONIA"]), r"model.json: classes\.1: "),
        (lambda folder: edit(folder, git_revision="\033[2J"), "model.json: git_revision: "),
        (lambda folder: edit(folder, git_revision="![](/etc/hosts)"), "model.json: git_revision: "),
        (lambda folder: edit(folder, arch="\033[2J"), "model.json: arch: "),
        (lambda folder: edit(folder, locked={"operating_point": 1}), "model.json: content: .*no operating point"),
        (lambda folder: edit(folder, threshold=0.5, temperature=1.5, locked=LOCKED), "differ from those of locked"),
        (lambda folder: edit(folder, arch="squeezenet9"), "squeezenet9"),
        (lambda folder: edit(folder, arch="alexnet"), "does not fit alexnet with 2 outputs"),
        (lambda folder: edit(folder, head=1), "does not fit squeezenet1_1 with 1 outputs"),
    ],
)
def test_a_bad_package_is_one_line_that_names_the_file(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_classifier(folder)
    assert caught.value.message.isprintable()
    assert caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_they_are_read(tmp_path, model, value):
    arrays = to_arrays(model)
    arrays["classifier.1.bias"] = np.full_like(arrays["classifier.1.bias"], value)
    save_package(tmp_path / "package", arrays, INFO)
    with pytest.raises(UserError, match=r"weights\.safetensors: classifier\.1\.bias holds numbers that are not finite"):
        load_classifier(tmp_path / "package")


def test_log_odds_that_overflow_are_no_answer(model):
    large = build_model("squeezenet1_1", "none", 2, 32)
    large.load_state_dict({name: value * 1e38 for name, value in model.state_dict().items()})
    with pytest.raises(UserError, match="output for 3 of 3 films is no finite number"):
        predict_logits(large, np.full((3, 32, 32), 200, np.uint8), device="cpu", precision="fp32")


def test_weights_of_a_card_without_hash_are_still_checked(folder):
    edit(folder, weights_sha256="")
    state = load_file(folder / WEIGHTS)
    del state["classifier.1.bias"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(UserError, match=r"does not fit squeezenet1_1.*classifier\.1\.bias"):
        load_classifier(folder)
    (folder / WEIGHTS).write_bytes(b"x" * 99)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_classifier(folder)
