"""What only the images can tell of a model: its scores, shortcuts beside it, how it bears changes, where it looks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pulmo.base.params import AugmentParams
from pulmo.evaluation.probes import explanation as explain
from pulmo.evaluation.probes.renderings import render_films
from pulmo.evaluation.probes.robustness import draw_films, measure_robustness
from pulmo.evaluation.probes.shortcuts import measure_shortcuts
from pulmo.metrics.locked import Locked
from pulmo.model.augmentation import augment, make_generator
from pulmo.model.classifier import Classifier
from pulmo.reporting.figures import Samples


def score_films(package: Classifier, films: pd.DataFrame, images: np.ndarray, batch_size: int) -> pd.DataFrame:
    """`films` (columns row of `images`, target) with the columns label and logit, the log-odds of PNEUMONIA."""
    logits = package.score(images[films.row], batch_size, precision="fp32")
    return films.assign(label=films.target, logit=logits.astype(float))


def score_renderings(
    package: Classifier, val: pd.DataFrame, images: np.ndarray, batch_size: int, films: int, seed: int
) -> pd.DataFrame | None:
    """A row (rendering, label, patient, logit) for every rendering of at most `films` films of `val` (row of `images`,
    target), drawn with the class balance of all of them; None where no films are asked for."""
    if not films:
        return None
    val = val.iloc[draw_films(val.target.to_numpy(), films, seed)]
    plain, tables = np.ascontiguousarray(images[val.row]), []
    for name, rendered in render_films(plain, val.target.to_numpy(), seed):
        logits = package.score(rendered, batch_size)
        about = {"rendering": name, "label": val.target, "patient": val.patient, "logit": logits.astype(float)}
        tables.append(pd.DataFrame(about))
    return pd.concat(tables, ignore_index=True)


def inspect_model(
    package: Classifier,
    locked: Locked,
    predictions: pd.DataFrame,
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    images: np.ndarray,
    folder: Path,
    *,
    robustness_films: int,
    explain_films: int,
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
        return locked.decide(package.score(changed, batch_size).astype(float))[0]

    films = images[test.row]
    if robustness_films:
        report["robustness"] = measure_robustness(
            predict, films, test.label, test.patient, threshold, robustness_films, resamples, seed
        )
    if explain_films:
        gallery = folder / "explanation.png"
        report["explanation"] = explain.explain_films(
            package.network, films, test, threshold, gallery, explain_films, info.mean, info.std, resamples, seed
        )
    return report


def sample_films(films: pd.DataFrame, images: np.ndarray, changes: Mapping[str, Any], seed: int) -> Samples:
    """Six train films, as they are and augmented twice. `films` has columns row (of `images`), subtype and label;
    `changes` are the fields of AugmentParams."""
    shown = films.sample(min(6, len(films)), random_state=seed).sort_values("label")
    plain = np.ascontiguousarray(images[shown.row])
    generators = [make_generator(torch.device("cpu"), seed, "samples", again) for again in range(2)]
    augmented = [augment(torch.from_numpy(plain), AugmentParams(**changes), dice).numpy() for dice in generators]
    return Samples(shown, plain, augmented)
