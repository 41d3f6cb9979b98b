"""A probe: a measurement that needs the images themselves, with its part of the report and of the model card."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pulmo.base.params import EvaluateParams
from pulmo.films.rows.processed import read_index
from pulmo.films.rows.table import read_films, read_splits
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.locked import Locked
from pulmo.model.classifier import Classifier
from pulmo.reporting.report import Finding


@dataclass(frozen=True)
class Data:
    """The films of the pipeline: data/films.csv, splits.csv and index.csv, and the pixels, uint8 (N, S, S)."""

    films: pd.DataFrame
    splits: pd.DataFrame
    index: pd.DataFrame
    images: np.ndarray


def read_data(films: Path, splits: Path, index: Path, images: np.ndarray) -> Data:
    """The tables of these files, beside the images."""
    return Data(read_films(films), read_splits(splits), read_index(index), images)


@dataclass(frozen=True)
class Subject:
    """The input of a probe: a model with its decision, and the films with its answers.

    `predictions`: val and test with columns path, split, row (of the images), patient, label, logit, prob_pneumonia;
    `rendered`: films of val in every rendering (rendering, label, patient, logit), where any were asked for.
    """

    classifier: Classifier
    locked: Locked
    data: Data
    predictions: pd.DataFrame
    rendered: pd.DataFrame | None
    params: EvaluateParams

    @property
    def test(self) -> pd.DataFrame:
        """The test films with the model's answers."""
        return self.predictions[self.predictions.split == "test"]

    @property
    def resampling(self) -> Resampling:
        """The resampling behind every interval."""
        return Resampling(self.params.bootstrap, self.params.seed)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of PNEUMONIA of images uint8 (N, S, S)."""
        return self.locked.calibrate(self.classifier.score(images, self.params.batch_size).astype(float))


@dataclass(frozen=True)
class Probe:
    """One measurement: its name in the report, its section of the model card, and the function that measures."""

    name: str
    title: str  # of its section; empty: a paragraph among the results
    template: Path  # of the section, in Jinja; `part` is the finding, and all that the card knows is at hand
    measure: Callable[[Subject], Finding | None]  # None where params ask for no film


def draw_rows(labels: np.ndarray, films: int, seed: int) -> np.ndarray:
    """Sorted rows of at most `films` films with the class balance of all; the same seed draws the same ones."""
    if len(labels) <= films:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(np.flatnonzero(labels == value)) for value in (1, 0))
    count = round(films * len(positive) / len(labels))
    count = min(max(count, min(1, len(positive))), films - min(1, len(negative)))  # a rare class is not lost
    return np.sort(np.concatenate([positive[:count], negative[: films - count]]))
