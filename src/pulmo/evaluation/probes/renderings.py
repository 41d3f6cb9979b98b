"""Validation films as other equipment might have delivered them: what a model and its threshold ought to survive.

Films of another year or hospital are framed, sharpened and stored in other ways than those that a model learnt from,
and scores shift with that. The mean AUROC over these renderings tells models apart that are alike on the films as they
are, and a threshold that is best on their mean leaves room for the shift; both look at validation alone. Strengths are
those of 224 px; sigmas grow with the size of the film.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from pulmo.evaluation.probes.image_changes import to_gray
from pulmo.evaluation.probes.probe import Probe, Subject, draw_rows
from pulmo.metrics.bootstrap import Resampling, bootstrap
from pulmo.metrics.calibration import measure_calibration_error
from pulmo.metrics.estimates import Estimate, estimate_auroc
from pulmo.metrics.ranking import Floats, ranking
from pulmo.metrics.reliability import Chance
from pulmo.model.augmentation import log_spectra, take_spectra
from pulmo.model.classifier import Classifier
from pulmo.reporting.report import Finding

PLAIN = "as it is"


@dataclass(frozen=True)
class Renderings(Finding):
    """AUROC of each rendering of validation by its name, the mean of them all, and the calibration error of all their
    films together, after the temperature."""

    each: dict[str, Estimate]
    mean: Estimate
    ece: Chance

    def add_to(self, content: dict[str, Any]) -> None:
        """Stand with the other numbers of val."""
        content["val"]["metrics"]["auroc_rendered"] = self.mean
        content["val"]["renderings"] = self.each
        content["val"]["calibration_rendered"] = {"ece": self.ece, "films": self.mean.films}


def measure_renderings(rendered: pd.DataFrame, resampling: Resampling, temperature: float = 1.0) -> Renderings:
    """From a table of `score_renderings`; patients are resampled jointly."""
    tables = {str(name): table for name, table in rendered.groupby("rendering", sort=False)}
    first = next(iter(tables.values()))
    label, patient = first.label.to_numpy() == 1, first.patient.to_numpy()
    ranked = {
        name: ranking(label, table.logit.to_numpy(dtype=float), with_auprc=False) for name, table in tables.items()
    }

    def statistic(weights: Floats) -> dict[str, Floats]:
        each = {name: rank(weights)["auroc"] for name, rank in ranked.items()}
        return each | {"mean": np.mean(list(each.values()), axis=0)}

    values, replicates = bootstrap(statistic, label, patient, *resampling)
    each = {name: estimate_auroc(float(values[name]), replicates[name], label, patient) for name in values}
    mean = each.pop("mean")
    ece = measure_calibration_error(rendered.label, rendered.logit, temperature, rendered.patient, resampling.seed)
    return Renderings(each, mean, ece)


def score_renderings(
    classifier: Classifier, val: pd.DataFrame, images: np.ndarray, batch_size: int, films: int, seed: int
) -> pd.DataFrame | None:
    """A row (rendering, label, patient, logit) for every rendering of at most `films` films of `val` (row of `images`,
    target), drawn with the class balance of all of them; None where no films are asked for. The decision may be locked
    on them, so they are scored before the probes run."""
    if not films:
        return None
    val = val.iloc[draw_rows(val.target.to_numpy(), films, seed)]
    plain, tables = np.ascontiguousarray(images[val.row]), []
    for name, rendered in render_films(plain, val.target.to_numpy(), seed):
        received = rendered if name == PLAIN else classifier.info.harmony.apply(rendered)
        logits = classifier.score(received, batch_size)
        about = {"rendering": name, "label": val.target, "patient": val.patient, "logit": logits.astype(float)}
        tables.append(pd.DataFrame(about))
    return pd.concat(tables, ignore_index=True)


def render_films(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and renderings, uint8 (N, S, S) each, of films (N, S, S) with labels 0 or 1; as they are first."""
    sigma = images.shape[1] / 224
    clahe = cv2.createCLAHE(2.0, (8, 8))
    dice = np.random.default_rng(seed)
    yield PLAIN, images
    yield "blurred", _each(images, lambda film: _blur(film, sigma))
    yield "sharpened", _each(images, lambda film: cv2.addWeighted(film, 2, _blur(film, sigma), -1, 0))
    yield "brightened", _each(images, lambda film: 255 * (film / 255) ** 0.6)
    yield "locally equalised", _each(images, clahe.apply)
    yield "equalised", _each(images, cv2.equalizeHist)
    yield "noisy", _each(images, lambda film: film + 255 * 0.03 * dice.standard_normal(film.shape))
    yield "cropped", _each(images, lambda film: _crop(film, 0.8, 0.8))
    yield "cropped top and bottom", _each(images, lambda film: _crop(film, 1, 0.8))
    if 0 < labels.sum() < len(labels):
        yield "spectrum of the other class", swap_spectra(images, labels, dice)


def swap_spectra(images: np.ndarray, labels: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Films (N, S, S) with the radial power spectrum of a film of the other class, drawn for each; phases stay."""
    drawn = np.where(labels == 1, *(dice.choice(np.flatnonzero(labels == other), len(labels)) for other in (0, 1)))
    parts = [slice(start, start + 64) for start in range(0, len(images), 64)]
    spectra = torch.cat([log_spectra(torch.from_numpy(images[part]).float()) for part in parts])
    donors = spectra[torch.from_numpy(drawn)]
    swapped = [take_spectra(torch.from_numpy(images[part]).float(), donors[part]).numpy() for part in parts]
    return to_gray(np.concatenate(swapped))


def _each(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([to_gray(change(film)) for film in images])


def _blur(film: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(film, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _crop(film: np.ndarray, wide: float, high: float) -> np.ndarray:
    side = len(film)
    width, height = round(side * wide), round(side * high)
    left, top = (side - width) // 2, (side - height) // 2
    part = film[top : top + height, left : left + width]
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR)


def _measure(subject: Subject) -> Renderings | None:
    if subject.rendered is None:
        return None
    return measure_renderings(subject.rendered, subject.resampling, subject.locked.temperature.value)


PROBE = Probe("renderings", "", Path(__file__).with_suffix(".md.jinja"), _measure)
