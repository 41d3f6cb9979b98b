"""Evidence for and against heat maps: the share of the heat that falls on the lungs, and what is left of the maps when
the network forgets what it learnt (Adebayo et al. 2018)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from pulmo.evaluation.probes.gradcam import enlarge
from pulmo.evaluation.probes.lungs import HOW, find_lungs
from pulmo.films.rows.labels import LABELS
from pulmo.metrics.bootstrap import Resampling, bootstrap
from pulmo.metrics.estimates import Estimate, estimate, estimate_text
from pulmo.metrics.ranking import Floats, weigh

STEPS = {"last layer": 0.0, "last quarter": 0.25, "last half": 0.5, "last three quarters": 0.75, "all layers": 1.0}
ALIKE = 0.5  # mean rank correlation above which the maps of a network without knowledge count as the same maps
SHUFFLED_FILMS = 24
HeatOf = Callable[[nn.Module, np.ndarray], np.ndarray]  # a network's maps of some rows of the films


@dataclass(frozen=True)
class HeatShare:
    """Mean share of the heat, and of the film, in the lungs, and how much greater the first is, over the films that
    have heat."""

    heat: Estimate
    area: Estimate
    excess: Estimate


@dataclass(frozen=True)
class Lungs:
    """The heat on the lungs: how lungs were found, and the shares over all films and by what they are called."""

    how: str
    shares: dict[str, HeatShare]


@dataclass(frozen=True)
class Randomisation:
    """Mean rank correlation of a map with the one after some layers were shuffled, by name of STEPS, and between maps
    of different films; the maps pass where that of all layers stays below `alike`."""

    steps: dict[str, Estimate]
    between_films: Estimate
    alike: float
    passes: bool


class Sample(NamedTuple):
    """Films drawn by lot, with their heat maps."""

    rows: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    called: np.ndarray
    maps: np.ndarray


def locate_heat(sample: Sample, images: np.ndarray, resampling: Resampling) -> Lungs:
    """The share of the heat on the lungs, over the films of `sample` and by what they are called. `images` are its
    films, uint8 (N, S, S)."""
    heat, area = measure_lungs(images, sample.maps)
    area[np.isnan(heat)] = np.nan
    called = sample.called
    masks = {"all": np.ones_like(called), f"called {LABELS[1]}": called, f"called {LABELS[0]}": ~called}
    shares = {
        name: HeatShare(
            *(
                _mean(values[mask], sample.label[mask], sample.patient[mask], resampling)
                for values in (heat, area, heat - area)
            )
        )
        for name, mask in masks.items()
    }
    return Lungs(HOW, shares)


def doubt_lungs(shares: dict[str, HeatShare]) -> list[str]:
    """That the heat lies off the lungs beyond chance, in all films or in those of one answer, or else that it is not
    shown to lie on them."""

    def describe(share: HeatShare) -> str:
        return (
            f"{estimate_text(share.heat)} of the heat lies in them, and they are {share.area.value:.3f} of the "
            f"film, a difference of {estimate_text(share.excess)}"
        )

    off = {name: share for name, share in shares.items() if share.excess.high is not None and share.excess.high < 0}
    doubts = [
        f"Its heat lies off the lungs beyond chance (test films, {name}): {describe(share)}."
        for name, share in off.items()
    ]
    low = shares["all"].excess.low
    if "all" not in off and low is not None and low <= 0:
        text = describe(shares["all"])
        doubts.append(f"That over all test films it looks at the lungs more than chance would is not shown: {text}.")
    return doubts


def randomise(sample: Sample, heat_of: HeatOf, network: nn.Module, resampling: Resampling) -> Randomisation:
    """Compare the maps of the first films of `sample` with those of copies of `network` whose weights are shuffled."""
    few = slice(min(SHUFFLED_FILMS, len(sample.rows)))
    maps = sample.maps[few]

    def average(values: Floats) -> Estimate:
        return _mean(values, sample.label[few], sample.patient[few], resampling)

    steps = {}
    for name, share in STEPS.items():
        forgetful = heat_of(shuffle_layers(network, share, resampling.seed), sample.rows[few])
        steps[name] = average(correlate(maps, forgetful))
    between = average(correlate(maps, np.roll(maps, 1, axis=0)))
    left = steps["all layers"].value
    return Randomisation(steps, between, ALIKE, passes=left is None or left < ALIKE)


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


def _mean(values: Floats, labels: np.ndarray, patients: np.ndarray, resampling: Resampling) -> Estimate:
    known = ~np.isnan(values)
    if not known.any():
        return Estimate(None, None, None, 0, 0, "no film has such a map")
    values, labels, patients = values[known], labels[known], patients[known]

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"mean": weigh(weights, values) / weights.sum(axis=1)}

    value, replicates = bootstrap(statistic, labels, patients, *resampling)
    return estimate(float(value["mean"]), replicates["mean"], patients)
