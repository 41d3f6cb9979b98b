"""Every picture of an evaluation, and the tables behind the charts of `dvc plots`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pulmo.base.files import whole_folder
from pulmo.base.params import AugmentParams
from pulmo.evaluation.probes.probe import Subject
from pulmo.model.augmentation import augment, make_generator
from pulmo.reporting import figures
from pulmo.reporting.figures import Samples
from pulmo.reporting.report import Report


def draw_pictures(
    report: Report,
    subject: Subject,
    train: pd.DataFrame,
    history: pd.DataFrame,
    leakage: Mapping[str, Any],
    plots: Path,
    curves: Path,
) -> None:
    """Fill the folders `plots` with pictures and `curves` with tables, each whole, in place of earlier ones.

    `train`: the train films (columns row of the images, subtype, label); `history`: rows of reports/history.csv;
    `leakage`: the audit of the split.
    """
    images, seed = subject.data.images, subject.params.seed
    with whole_folder(plots) as folder:
        figures.draw_report(report, folder)
        figures.draw_training(history, folder)
        figures.draw_data(leakage, folder)
        changes = subject.classifier.info.training["augment"]
        figures.draw_samples(sample_films(train, images, changes, seed), folder)
        figures.draw_predictions(subject.test, images, report.locked, folder, seed)
    with whole_folder(curves) as folder:
        figures.write_plot_tables(report, subject.predictions, leakage, folder)


def sample_films(films: pd.DataFrame, images: np.ndarray, changes: Mapping[str, Any], seed: int) -> Samples:
    """Six train films, as they are and augmented twice. `films` has columns row (of `images`), subtype and label;
    `changes` are the fields of AugmentParams."""
    shown = films.sample(min(6, len(films)), random_state=seed).sort_values("label")
    plain = np.ascontiguousarray(images[shown.row])
    generators = [make_generator(torch.device("cpu"), seed, "samples", again) for again in range(2)]
    augmented = [augment(torch.from_numpy(plain), AugmentParams(**changes), dice).numpy() for dice in generators]
    return Samples(shown, plain, augmented)
