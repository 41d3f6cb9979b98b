"""A small report with a finding of every probe, and the rest of what a model card is written from."""

import copy
from dataclasses import is_dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from pulmo.evaluation.probes.explanation import explain_films
from pulmo.evaluation.probes.robustness import measure_robustness
from pulmo.evaluation.probes.shortcuts import measure_shortcuts
from pulmo.evaluation.probing import PROBES
from pulmo.evaluation.report import decide_films, evaluate_predictions
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.locked import LockingRules
from pulmo.model.classifier import Classifier
from pulmo.package.info import PackageInfo
from pulmo.reporting.card import Facts, write_card
from pulmo.reporting.report import Report, Section

HASHES = {name: character * 64 for name, character in (("data_sha256", "d"), ("weights_sha256", "e"))}
INFO = {
    "arch": "resnet18",
    "size": 32,
    "fit": "squash",
    "tta_views": 1,
    "git_revision": "f" * 40,
    "training": {
        "weights": "none",
        "freeze": "none",
        "loss": "bce",
        "optimizer": "adamw",
        "lr": 0.0007,
        "schedule": "cosine",
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "best": {"epoch": 2},
    },
} | HASHES
HISTORY = [{"epoch": 1, "seconds": 30.0}, {"epoch": 2, "seconds": 41.0}]
CALLED = ("called PNEUMONIA", "called NORMAL")
COUNTS = {
    "films": 120,
    "patients": 60,
    "labels": {"NORMAL": 60, "PNEUMONIA": 60},
    "subtypes": {"normal": 60, "bacterial": 33, "viral": 27},
}
LEAKAGE = {
    "patients_across_splits": [],
    "exact_duplicates_across_splits": [],
    "patient_keys": "as the source names them",
    "splits": dict.fromkeys(("train", "val", "test"), COUNTS),
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 8, stride=8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.pool(self.features(x)).flatten(1))


def change(thing, keys, value):
    """A copy of a report, or of a part of it, with one value changed; a section goes by the name of its probe."""
    if not keys:
        return value
    first, *rest = keys
    if isinstance(thing, Report) and first in thing.findings:
        parts = [change(part, ["finding", *rest], value) if part.name == first else part for part in thing.sections]
        return replace(thing, sections=parts)
    if is_dataclass(thing):
        return replace(thing, **{first: change(getattr(thing, first), rest, value)})
    copied = copy.copy(thing)
    copied[first] = change(thing[first], rest, value)
    return copied


def write(folder, report, source="kaggle", leakage=LEAKAGE):
    write_card(report, Facts(INFO, 100, "dvc repro --pull"), HISTORY, leakage, source, folder)
    return (folder / "model_card.md").read_text(), (folder / "model_card.html").read_text()


def make_report() -> Report:
    """The evaluation of 360 films of noise and a model that knows much."""
    rng = np.random.default_rng(0)
    label = np.arange(360) % 2
    films = pd.DataFrame(
        {
            "path": [f"{i:03d}.png" for i in range(360)],
            "width": 300,
            "height": rng.integers(200, 300, 360),
            "mode": "L",
            "bytes": rng.integers(9000, 12000, 360),
        }
    )
    images = rng.integers(0, 256, (360, 32, 32)).astype(np.uint8)
    splits = films[["path"]].assign(
        split=np.repeat(["train", "val", "test"], 120), patient=np.arange(360) // 2 * 2 + label
    )
    splits["label"] = np.array(["NORMAL", "PNEUMONIA"])[label]
    subtype = np.where(label == 0, "normal", np.where(np.arange(360) % 4 == 1, "viral", "bacterial"))
    table = films.merge(splits.drop(columns="label"), on="path").assign(
        label=label, subtype=subtype, logit=3.0 * label - 1.5 + rng.normal(0, 1.2, 360)
    )
    table.loc[(table.split == "test") & (label == 0), "logit"] += 1.5
    scored = table[table.split != "train"]
    resampling = Resampling(100)
    report = evaluate_predictions(scored, None, LockingRules(), resampling)
    test = decide_films(scored[scored.split == "test"], report.locked)
    index = films[["path"]].assign(row=range(360))
    torch.manual_seed(0)
    classifier = Classifier(Network(), PackageInfo(arch="resnet18", head=1, size=32, fit="squash"))
    found = {
        "shortcuts": measure_shortcuts(films, splits, index, images, scored, resampling),
        "robustness": measure_robustness(
            lambda some: some.mean(axis=(1, 2)),
            lambda gray: gray >= 127.5,
            images[240:],
            test.label,
            test.patient,
            40,
            resampling,
        ),
        "explanation": explain_films(classifier, images[240:], test, report.locked, 30, resampling),
    }
    sections = [Section(probe.name, probe.title, probe.template, found.get(probe.name)) for probe in PROBES]
    return replace(report, sections=sections)
