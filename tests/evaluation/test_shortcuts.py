import tracemalloc
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pulmo.base.errors import UserError
from pulmo.base.files import read_json, write_json
from pulmo.evaluation.probes.features import BINS, border, power_spectrum
from pulmo.evaluation.probes.shortcuts import match_films, measure_shortcuts
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import to_json

SIZE = 32


def make_films(seed=0, told_by="nothing", test=60):
    """120 train, 60 val and some test films of noise, two per patient, whose label one property of the file tells."""
    rng, count = np.random.default_rng(seed), 180 + test
    split = np.repeat(["train", "val", "test"], [120, 60, test])
    label = np.tile([0, 0, 1, 1], count // 4)
    films = pd.DataFrame(
        {
            "path": [f"{i:03d}.png" for i in range(count)],
            "width": 300 + rng.integers(0, 40, count),
            "height": 280,
            "mode": "L",
            "bytes": 9000 + rng.integers(0, 3000, count) + (8000 * label if told_by == "bytes" else 0),
        }
    )
    splits = films[["path"]].assign(split=split, label=np.array(["NORMAL", "PNEUMONIA"])[label])
    splits["patient"] = [f"p{i // 2}" for i in range(count)]
    rows = rng.permutation(count)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    images[rows] = rng.integers(0, 256, images.shape)
    logit = 3.0 * label + rng.normal(0, 1, count)
    predictions = films.assign(logit=logit)[split != "train"]
    return films, splits, films[["path"]].assign(row=rows), images, predictions


def named(report, name):
    return next(row for row in report.families if row.name == name)


def test_a_shortcut_in_the_files_is_found_and_said(tmp_path):
    report = measure_shortcuts(*make_films(told_by="bytes"), Resampling(100))
    content = {}
    report.add_to(content)
    write_json(tmp_path / "report.json", to_json(content))
    assert read_json(tmp_path / "report.json")["shortcuts"]["strongest"] == "file"
    assert named(report, "file").test.value > 0.99
    assert report.explains == "most"
    assert report.verdict.startswith("A shortcut explains most of this result (file")
    for name in ("gray level", "power spectrum", "border"):
        assert named(report, name).test.value < 0.75


def test_without_a_shortcut_the_model_stands():
    films = make_films()
    report = measure_shortcuts(*films, Resampling(100))
    assert report.explains == "little"
    assert report.verdict.startswith("No shortcut that was tried explains")
    table = films[1].merge(films[4], on="path")
    table = table[table.split == "test"]
    assert report.model["test"] == pytest.approx(roc_auc_score(table.label == "PNEUMONIA", table.logit))
    assert named(report, "file").test.patients == 30


def test_a_model_that_leans_on_a_shortcut_owes_it_part_or_most_of_its_result(monkeypatch):
    films, splits, index, images, predictions = make_films(test=400)
    rng = np.random.default_rng(5)
    label = (splits.label == "PNEUMONIA").to_numpy()
    shortcut = 2 * label + rng.normal(0, 1, 580)
    films["bytes"] = (9000 * np.exp(0.1 * shortcut)).astype(int)
    predictions["logit"] = (shortcut + label + rng.normal(0, 0.5, 580))[splits.split != "train"]
    report = measure_shortcuts(films, splits, index, images, predictions, Resampling(100))
    assert report.explains == "part"
    assert report.verdict.startswith("Shortcuts explain part of this result (file")
    monkeypatch.setattr("pulmo.evaluation.probes.shortcuts.FALL", 0.02)
    report = measure_shortcuts(films, splits, index, images, predictions, Resampling(100))
    assert report.explains == "most"
    assert "the model falls by more than 0.02 among films matched on file" in report.verdict


def test_what_is_the_same_for_every_film_has_no_number():
    mode = named(measure_shortcuts(*make_films(), Resampling(100)), "mode")
    assert mode.note == "the same for every film"
    assert mode.val is mode.test is mode.matched is None


def test_all_together_joins_what_tells_anything():
    report = measure_shortcuts(*make_films(), Resampling(100))
    columns = {row.name: row.features for row in report.families}
    assert columns.pop("all shortcuts") == sum(columns.values()) - columns["mode"]


def test_a_missing_prediction_is_named():
    *data, predictions = make_films()
    with pytest.raises(UserError, match=r"lack 200\.png"):
        measure_shortcuts(*data, predictions[predictions.path != "200.png"], Resampling(100))


def test_matching_by_hand():
    label = np.array([1, 1, 0, 0])
    shortcut = np.array([0.0, 10.0, 0.0, 10.0])  # pairs: film 0 with 2, film 1 with 3
    model = np.array([5.0, 1.0, 2.0, 1.0])  # a win and a tie
    found = match_films(label, shortcut, model, np.arange(4), Resampling(50))
    assert (found.pairs, found.normal, found.pneumonia) == (2, 2, 2)
    assert found.model.value == pytest.approx(0.75)
    assert found.shortcut.value == pytest.approx(0.5)
    assert found.fall.value == pytest.approx((1 + 1 + 0 + 0.5) / 4 - 0.75)


def test_matching_does_not_depend_on_the_scale_of_the_shortcut():
    rng = np.random.default_rng(6)
    label, model = np.arange(80) % 2, rng.normal(0, 1, 80)
    shortcut = rng.normal(0, 1, 80)
    small, large = (match_films(label, scale * shortcut, model, np.arange(80), Resampling(50)) for scale in (0.01, 100))
    assert small == large
    assert 40 < small.pairs < 400


def test_of_many_films_some_are_drawn_so_that_pairs_stay_few():
    rng = np.random.default_rng(4)
    label = (np.arange(40_000) % 4 == 0).astype(int)
    model, shortcut = label + rng.normal(0, 1, (2, 40_000))
    tracemalloc.start()
    found = match_films(label, shortcut, model, np.arange(40_000), Resampling(20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4400 < found.normal <= 4500, "three quarters of 6,000, less those without a match"
    assert 1400 < found.pneumonia <= 1500
    assert found.model.value == pytest.approx(roc_auc_score(label, model), abs=0.02), "independent of the shortcut"
    assert peak < 1e9


def test_a_useless_shortcut_matches_all_and_a_perfect_one_none():
    rng = np.random.default_rng(1)
    label = np.arange(200) % 2
    model = label + rng.normal(0, 1, 200)
    useless = match_films(label, np.zeros(200), model, np.arange(200), Resampling(50))
    assert useless.pairs == 100 * 100
    assert useless.model.value == pytest.approx(roc_auc_score(label, model))
    assert useless.fall.value == pytest.approx(0)
    perfect = match_films(label, 100.0 * label, model, np.arange(200), Resampling(50))
    assert perfect.pairs == 0
    assert perfect.model.value is None


def test_a_model_that_is_the_shortcut_falls_to_chance():
    rng = np.random.default_rng(2)
    label = np.arange(400) % 2
    shortcut = 2 * label + rng.normal(0, 1, 400)
    found = match_films(label, shortcut, shortcut + rng.normal(0, 0.5, 400), np.arange(400), Resampling(200))
    assert found.model.low < 0.55
    assert found.fall.low > 0.2


def test_the_power_spectrum_is_that_of_the_whole_transform():
    images = np.random.default_rng(3).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = np.abs(np.fft.fft2((images - images.mean(axis=(1, 2), keepdims=True)) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    edges = np.linspace(0, 0.5, BINS + 1)
    rings = [(radius > low + 1e-9) & (radius <= high + 1e-9) for low, high in pairwise(edges)]
    expected = np.log(np.stack([power[:, ring].mean(axis=1) for ring in rings], axis=1) + 1)
    assert power_spectrum(images) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [32, 33])
def test_a_wave_has_its_power_in_its_ring(size):
    wave = 128 + 100 * np.sin(2 * np.pi * 6 * np.arange(size) / size)
    found = power_spectrum(np.tile(wave, (1, size, 1)).astype(np.uint8))[0]
    assert np.isfinite(found).all()
    assert found.argmax() == 5


def test_the_border_does_not_see_the_inside():
    images = np.random.default_rng(4).integers(0, 256, (2, 40, 40)).astype(np.uint8)
    changed = images.copy()
    changed[:, 2:-2, 2:-2] = 0
    assert border(images).shape == (2, 64)
    assert (border(images) == border(changed)).all()
    changed[:, 10, -1] = 255 - changed[:, 10, -1]
    assert (border(images) != border(changed)).any(axis=0).sum() == 2
