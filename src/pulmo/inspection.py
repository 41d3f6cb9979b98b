"""What only the images can tell of a model: shortcuts beside it, how it bears changes, where it looks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmo.evaluation import Locked
from pulmo.explain import explain_films
from pulmo.model import predict_logits
from pulmo.package import Package
from pulmo.robustness import measure_robustness
from pulmo.shortcuts import measure_shortcuts


def inspect_model(
    package: Package,
    locked: Locked,
    predictions: pd.DataFrame,
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    images: np.ndarray,
    folder: Path,
    *,
    robustness_films: int,
    explained_films: int,
    batch_size: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The keys shortcuts, robustness and explanation of the report; the latter two only where films are asked for.

    `predictions`: val and test with columns path, split, row (of `images`), patient, label, logit, prob_pneumonia;
    `tables`: films.csv, splits.csv and index.csv. Draws explanation.png into `folder`.
    """
    test, info = predictions[predictions.split == "test"], package.info
    threshold = locked.operating_point.threshold
    report = {"shortcuts": measure_shortcuts(*tables, images, predictions, resamples, seed)}

    def predict(changed: np.ndarray) -> np.ndarray:
        logits = predict_logits(package.model, changed, batch_size, mean=info.mean, std=info.std)
        return locked.decide(logits.astype(float))[0]

    films = images[test.row]
    if robustness_films:
        report["robustness"] = measure_robustness(
            predict, films, test.label, test.patient, threshold, robustness_films, resamples, seed
        )
    if explained_films:
        gallery = folder / "explanation.png"
        report["explanation"] = explain_films(
            package.model, films, test, threshold, gallery, explained_films, info.mean, info.std, resamples, seed
        )
    return report
