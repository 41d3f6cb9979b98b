"""Validation films as other equipment and software would have delivered them, in ways that no recipe trains on.

Unlike the renderings, of which augmentation knows some, these were fixed before anything was trained to bear them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmo.evaluation.probes.equipment_films import FIRST, Change, deliver_films
from pulmo.evaluation.probes.probe import Probe, Subject, draw_rows
from pulmo.evaluation.probes.renderings import measure_renderings
from pulmo.metrics.estimates import Estimate
from pulmo.model.classifier import Classifier
from pulmo.reporting.report import Finding


@dataclass(frozen=True)
class Equipment(Finding):
    """AUROC on validation by the name of the change, and the mean of them all."""

    each: dict[str, Estimate]
    mean: Estimate

    def add_to(self, content: dict[str, Any]) -> None:
        """Stand with the other numbers of val."""
        content["val"]["metrics"]["auroc_equipment"] = self.mean
        content["val"]["equipment"] = self.each


def score_equipment(
    classifier: Classifier, val: pd.DataFrame, images: np.ndarray, changes: Mapping[str, Change], films: int, seed: int
) -> pd.DataFrame:
    """A row (rendering, label, patient, logit) for each of `changes` of at most `films` films of `val` (row of
    `images`, target, patient), drawn with the class balance of all of them."""
    val, tables = val.iloc[draw_rows(val.target.to_numpy(), films, seed)], []
    plain = np.ascontiguousarray(images[val.row])
    for name, change in changes.items():
        received = classifier.info.harmony.apply(deliver_films(plain, change, seed))
        about = {"rendering": name, "label": val.target, "patient": val.patient}
        tables.append(pd.DataFrame({**about, "logit": classifier.score(received).astype(float)}))
    return pd.concat(tables, ignore_index=True)


def _measure(subject: Subject) -> Equipment | None:
    films, seed = subject.params.rendered_films, subject.params.seed
    if not films:
        return None
    val = subject.predictions[subject.predictions.split == "val"]
    scored = score_equipment(subject.classifier, val, subject.data.images, FIRST, films, seed)
    measured = measure_renderings(scored, subject.resampling)
    return Equipment(measured.each, measured.mean)


PROBE = Probe("equipment", "", Path(__file__).with_suffix(".md.jinja"), _measure)
