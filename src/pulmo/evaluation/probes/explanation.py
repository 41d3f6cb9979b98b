"""Whether the heat maps can be believed: a gallery, how much heat falls on the lungs, and what is left of the maps when
the network forgets what it learnt (Adebayo et al. 2018).

A heat map speaks for the decision that was made: for PNEUMONIA where the film is called so, else for NORMAL.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn

from pulmo.base.errors import UserError
from pulmo.evaluation.probes.gradcam import enlarge, find_feature_map, grad_cam
from pulmo.evaluation.probes.lungs import HOW, find_lungs
from pulmo.films.labels import LABELS
from pulmo.metrics.bootstrap import bootstrap
from pulmo.metrics.decisions import confidence
from pulmo.metrics.estimates import Estimate, estimate, probability_text
from pulmo.metrics.ranking import Floats
from pulmo.package.info import IMAGENET_MEAN, IMAGENET_STD
from pulmo.reporting.galleries import draw_heat_maps

STEPS = {"last layer": 0.0, "last quarter": 0.25, "last half": 0.5, "last three quarters": 0.75, "all layers": 1.0}
ALIKE = 0.5  # mean rank correlation above which the maps of a network without knowledge count as the same maps
SHUFFLED_FILMS = 24
TITLE = "Grad-CAM: what speaks for the decision made; under each film, what it is and its probability of PNEUMONIA"


def explain_films(
    model: nn.Module,
    images: np.ndarray,
    table: pd.DataFrame,
    threshold: float,
    gallery: Path,
    films: int = 100,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Explain decisions on `images`, uint8 (N, S, S), described by the rows of `table`: path, label (0 or 1), patient
    and prob_pneumonia, which is cut at `threshold`. Draws the picture `gallery`.

    Returns, for JSON: note (why there is no heat map, else empty); gallery: the films of each kind of `choose_gallery`;
    layer and grid (h, w) of the maps; and, of at most `films` films drawn by lot, lungs {how, all, called PNEUMONIA,
    called NORMAL}, of which the latter three are {heat, area, excess}: mean share of the heat, and of the film, in the
    lungs, and how much greater the first is, over the films that have heat;
    randomisation {steps: by name of STEPS, the mean rank correlation of a map with the one after those layers were
    shuffled; between_films: the same between maps of different films; alike: the limit; passes}.
    """
    label, probability = table.label.to_numpy(), table.prob_pneumonia.to_numpy()
    called = probability >= threshold
    direction = np.where(called, 1, -1)
    chosen = choose_gallery(label, probability, threshold)
    shown = {
        kind: table.iloc[rows][["path", "label", "prob_pneumonia"]].to_dict("records") for kind, rows in chosen.items()
    }
    report: dict[str, Any] = {"note": "", "gallery": shown, "layer": None, "grid": None, "lungs": None}
    try:
        report["layer"] = find_feature_map(model, images[:1], mean, std)
    except UserError as error:
        return report | {"note": error.message, "randomisation": None}

    def heat_of(network: nn.Module, rows: np.ndarray) -> np.ndarray:
        return grad_cam(network, images[rows], direction[rows], mean, std)

    rows = np.concatenate(list(chosen.values()))
    heats = [enlarge(heat, images.shape[1]) for heat in heat_of(model, rows)]
    captions = [_caption(kind, film) for kind, films_ in shown.items() for film in films_]
    draw_heat_maps(gallery, list(images[rows]), heats, captions, TITLE, 4)

    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[:films])
    maps = heat_of(model, drawn)
    heat, area = measure_lungs(images[drawn], maps)
    truth, patient, called = label[drawn], table.patient.to_numpy()[drawn], called[drawn]

    def average(values: Floats, some: np.ndarray) -> Estimate:
        return _mean(values, truth[some], patient[some], resamples, seed)

    masks = {"all": np.ones_like(called), f"called {LABELS[1]}": called, f"called {LABELS[0]}": ~called}
    area[np.isnan(heat)] = np.nan
    shares = {"heat": heat, "area": area, "excess": heat - area}
    lungs = {name: {key: average(share[m], m) for key, share in shares.items()} for name, m in masks.items()}
    few = np.arange(min(SHUFFLED_FILMS, len(drawn)))
    steps = {}
    for name, share in STEPS.items():
        forgetful = heat_of(shuffle_layers(model, share, seed), drawn[few])
        steps[name] = average(correlate(maps[few], forgetful), few)
    between = average(correlate(maps[few], np.roll(maps[few], 1, axis=0)), few)
    left = steps["all layers"]["value"]
    return report | {
        "grid": list(maps.shape[1:]),
        "lungs": {"how": HOW} | lungs,
        "randomisation": {
            "steps": steps,
            "between_films": between,
            "alike": ALIKE,
            "passes": left is None or left < ALIKE,
        },
    }


def choose_gallery(labels: np.ndarray, probabilities: np.ndarray, threshold: float, each: int = 4) -> dict[str, Any]:
    """Rows of the films to show: `surest right` (half of each class), `surest wrong`, and of the rest `most doubtful`,
    at most `each` of a kind; sureness is the distance from the threshold in log-odds."""
    called = probabilities >= threshold
    sure = confidence(probabilities, threshold)
    order = np.argsort(-sure, kind="stable")
    right, wrong = order[(called == labels)[order]], order[(called != labels)[order]]
    surest = np.concatenate([right[labels[right] == value][: each // 2] for value in (1, 0)])
    shown = np.concatenate([surest, wrong[:each]])
    doubtful = order[::-1][~np.isin(order[::-1], shown)][:each]
    chosen = {"surest right": surest, "surest wrong": wrong[:each], "most doubtful": doubtful}
    return {kind: rows for kind, rows in chosen.items() if len(rows)}


def measure_lungs(images: np.ndarray, maps: np.ndarray) -> tuple[Floats, Floats]:
    """Share of each map's heat inside the lungs (NaN for a map of zeros), and share of the film that the lungs cover,
    which is what heat spread evenly would reach."""
    masks = np.stack([find_lungs(image) for image in images])
    heat = np.stack([enlarge(one, images.shape[1]) for one in maps]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (heat * masks).sum(axis=(1, 2)) / heat.sum(axis=(1, 2)), masks.mean(axis=(1, 2))


def shuffle_layers(model: nn.Module, share: float, seed: int) -> nn.Module:
    """A copy of the network in which the weights of the last `share` of its layers, but at least of one, are shuffled
    within each tensor: it keeps their distribution and forgets what they knew."""
    forgetful = copy.deepcopy(model)
    layers = [layer for layer in forgetful.modules() if list(layer.parameters(recurse=False))]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers[::-1][: max(1, round(share * len(layers)))]:
            for weights in layer.parameters(recurse=False):
                order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
                weights.copy_(weights.flatten()[order].view_as(weights))
    return forgetful


def correlate(first: np.ndarray, second: np.ndarray) -> Floats:
    """Spearman's rank correlation of each pair of maps (N, h, w), NaN where one is constant."""
    pairs = zip(first.reshape(len(first), -1), second.reshape(len(second), -1), strict=True)
    return np.array([spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else np.nan for a, b in pairs], dtype=float)


def _mean(values: Floats, labels: np.ndarray, patients: np.ndarray, resamples: int, seed: int) -> Estimate:
    known = ~np.isnan(values)
    if not known.any():
        return {"value": None, "low": None, "high": None, "films": 0, "patients": 0, "note": "no film has such a map"}
    values, labels, patients = values[known], labels[known], patients[known]

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"mean": weights @ values / weights.sum(axis=1)}

    value, replicates = bootstrap(statistic, labels, patients, resamples, seed)
    return estimate(float(value["mean"]), replicates["mean"], patients)


def _caption(kind: str, film: dict[str, Any]) -> str:
    return f"{kind}: {LABELS[film['label']]},\nprobability {probability_text(film['prob_pneumonia'], 2)}"
