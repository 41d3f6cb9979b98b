"""The benchmark of the time to a quality, on films that train in a second."""

import importlib
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from small_project import ROOT
from test_training import IMAGES, QUICK, TRAIN, VAL, change

from pulmo.package.info import PackageInfo

SETTINGS = change(QUICK, ema=0.5, augment=QUICK.augment.model_copy(update={"rotation": 0.0}))


@pytest.fixture
def quality(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("quality")


@pytest.fixture
def task(quality):
    info = PackageInfo(arch=SETTINGS.arch, head=SETTINGS.head, size=32, fit="squash")
    plain = np.ascontiguousarray(IMAGES[VAL.rows])
    return quality.Task(TRAIN, VAL, [plain, 255 - plain], info, SETTINGS)


def test_each_epoch_is_kept_with_the_weights_that_training_scored(quality, task):
    network, epochs = quality.train(task, SETTINGS)
    seconds = [epoch.seconds for epoch in epochs]
    assert len(epochs) == SETTINGS.epochs
    assert seconds == sorted(seconds)
    only_plain = quality.Task(task.train, task.val, task.rendered[:1], task.info, SETTINGS)
    for epoch, row in zip(epochs, quality.fit(TRAIN, VAL, SETTINGS, progress=False).history, strict=True):
        network.load_state_dict(epoch.weights)
        assert quality.score(only_plain, network) == pytest.approx(row["val_auroc"], abs=0.02)  # perhaps in bf16
    assert quality.score(task, network) < quality.score(only_plain, network)


@pytest.mark.parametrize(
    ("scores", "target", "auroc", "epoch"),
    [
        ([0.9, 0.9896, 0.99], None, 0.99, 2),
        ([0.9, 0.9894, 0.99], None, 0.99, 3),
        ([0.99, 0.97, 0.98], 0.98, 0.98, 3),
        ([0.99, 0.99, 0.98], 0.97, 0.98, 1),
        ([0.99, 0.99, 0.98], 0.985, 0.98, None),
    ],
    ids=["within the margin", "beyond the margin", "an early peak", "always above", "never"],
)
def test_the_target_counts_as_reached_where_no_later_epoch_falls_below_it(
    quality, task, monkeypatch, scores, target, auroc, epoch
):
    ends = [quality.Epoch(float(number), {}) for number in (1, 2, 3)]
    left = list(scores)
    monkeypatch.setattr(quality, "train", lambda *_: (torch.nn.Identity(), ends))
    monkeypatch.setattr(quality, "score", lambda *_: left.pop())
    result = quality.measure(task, "way", SETTINGS, target)
    assert (result.auroc, result.seconds) == (auroc, 3.0)
    assert math.isnan(result.reached) if epoch is None else result.reached == epoch
