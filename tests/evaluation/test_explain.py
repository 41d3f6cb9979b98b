import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer
from toy_decision import cut_at

from pulmo.base.files import read_json, write_json
from pulmo.evaluation.probes.explanation import choose_gallery, explain_films
from pulmo.evaluation.probes.heat_evidence import STEPS, correlate, measure_lungs, shuffle_layers
from pulmo.evaluation.probes.lungs import find_lungs
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import to_json
from pulmo.model.classifier import Classifier
from pulmo.model.networks import build_model
from pulmo.package.info import PackageInfo

SIZE = 64


def draw_chest(middle=32.0, half=20.0, top=10, bottom=50, clear=(True, True)):
    """A bright chest film, uint8 (SIZE, SIZE), with two ellipses for lungs, dark where clear; and their mask."""
    image, mask = np.full((SIZE, SIZE), 190, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for side, is_clear in zip((-1, 1), clear, strict=True):
        centre = (round(middle + side * half * 0.55), (top + bottom) // 2)
        axes = (round(half * 0.35), (bottom - top) // 2)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
        cv2.ellipse(image, centre, axes, 0, 0, 360, 60 if is_clear else 150, -1)
    noise = np.random.default_rng(0).normal(0, 5, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1.5) + noise, 0, 255).astype(np.uint8), mask.astype(bool)


@pytest.mark.parametrize(
    "chest",
    [{}, {"middle": 27}, {"half": 24, "top": 4, "bottom": 56}, {"top": 18, "bottom": 56}, {"clear": (True, False)}],
    ids=["plain", "aside", "large", "low", "one lung opaque"],
)
@pytest.mark.parametrize("scale", [1, 3])
def test_lungs_are_found(chest, scale):
    image, lungs = draw_chest(**chest)
    found = find_lungs(cv2.resize(image, None, fx=scale, fy=scale))[::scale, ::scale]
    assert (found & lungs).sum() > 0.75 * lungs.sum()
    assert lungs.sum() > 0.5 * found.sum()


def test_a_dark_edge_is_no_lung():
    image, lungs = draw_chest(middle=30, half=16)
    image[:, 52:] = 20
    found = find_lungs(image)
    assert (found & lungs).sum() > 0.75 * lungs.sum()
    assert not found[:, 52:].any()


def test_even_heat_falls_on_the_lungs_by_their_area():
    images = np.stack([draw_chest()[0]] * 3)
    maps = np.ones((3, 4, 4), np.float32)
    maps[1] = 0
    maps[2] = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    heat, area = measure_lungs(images, maps)
    assert heat[0] == pytest.approx(area[0])
    assert np.isnan(heat[1])
    assert heat[2] > 1.5 * area[2]


def test_the_gallery_by_hand():
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    probability = np.array([0.99, 0.9, 0.95, 0.01, 0.2, 0.8, 0.03, 0.49])
    chosen = choose_gallery(label, probability, cut_at(0.5), each=2)
    assert {kind: rows.tolist() for kind, rows in chosen.items()} == {
        "surest right": [0, 3],
        "surest wrong": [6, 5],
        "most doubtful": [7, 4],
    }
    assert "surest wrong" not in choose_gallery(label[:5], probability[:5], cut_at(0.5))


def test_shuffling_forgets_from_the_last_layer_back():
    torch.manual_seed(0)
    model = build_model("squeezenet1_1", head=2, size=SIZE)
    before = {name: value.clone() for name, value in model.named_parameters()}

    def changed(share):
        shuffled = dict(shuffle_layers(model, share, 1).named_parameters())
        for name, value in shuffled.items():
            assert value.flatten().sort().values.equal(before[name].flatten().sort().values), name
        return {name for name, value in shuffled.items() if name.endswith("weight") and not value.equal(before[name])}

    assert changed(0) == {"classifier.1.weight"}
    assert {"classifier.1.weight", "features.12.squeeze.weight"} <= changed(0.25) < changed(0.75)
    assert "features.0.weight" not in changed(0.75)
    assert changed(1) == {name for name in before if name.endswith("weight")}
    assert all(value.equal(before[name]) for name, value in model.named_parameters())


def test_rank_correlation_of_maps():
    first = np.arange(12.0).reshape(3, 2, 2)
    second = np.stack([first[0] ** 3, -first[1], np.ones((2, 2))])
    assert correlate(first, second) == pytest.approx([1, -1, np.nan], nan_ok=True)


def classify(network):
    return Classifier(network, PackageInfo(arch="resnet18", head=1, size=SIZE, fit="squash"))


class Bright(nn.Module):
    """A head that was set by hand on features that were not learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


@pytest.fixture
def films():
    rng = np.random.default_rng(1)
    images = np.stack([draw_chest(middle=rng.uniform(28, 36))[0] for _ in range(12)])
    return images, pd.DataFrame(
        {
            "path": [f"test/{i}.png" for i in range(12)],
            "label": np.arange(12) % 2,
            "patient": [f"p{i // 2}" for i in range(12)],
            "prob_pneumonia": rng.uniform(0, 1, 12),
        }
    )


def test_the_report_of_a_network(films, tmp_path):
    torch.manual_seed(0)
    found = explain_films(classify(Bright()), *films, cut_at(0.5), 8, Resampling(50))
    found.draw(tmp_path)
    content = {}
    found.add_to(content)
    write_json(tmp_path / "report.json", to_json(content))
    report = read_json(tmp_path / "report.json")["explanation"]
    assert (tmp_path / "explanation.png").stat().st_size > 10_000
    assert (report["note"], report["layer"], report["grid"]) == ("", "features", [8, 8])
    lungs = report["lungs"]
    assert lungs["all"]["area"]["films"] == 8
    assert lungs["called PNEUMONIA"]["area"]["films"] + lungs["called NORMAL"]["area"]["films"] == 8
    assert 0 < lungs["all"]["area"]["value"] < 0.6
    heat, area, excess = (lungs["all"][key]["value"] for key in ("heat", "area", "excess"))
    assert excess == pytest.approx(heat - area)
    assert lungs["all"]["area"]["films"] == lungs["all"]["heat"]["films"]
    assert list(report["randomisation"]["steps"]) == list(STEPS)
    assert report["randomisation"]["passes"] in (True, False)
    assert {row["path"] for rows in report["gallery"].values() for row in rows} <= set(films[1].path)


def test_a_network_without_a_feature_map_is_skipped_with_its_reason(films, tmp_path):
    model = VisionTransformer(SIZE, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=1)
    report = explain_films(classify(model), *films, cut_at(0.5), 12, Resampling(50))
    report.draw(tmp_path)
    assert "tokens" in report.note
    assert report.lungs is report.randomisation is None
    assert report.gallery["surest right"]
    assert not list(tmp_path.iterdir())
