"""Evidence for and against the heat maps: a gallery, the share of heat that falls on the lungs, and what is left of the
maps when the network forgets what it learnt (Adebayo et al. 2018).

A heat map speaks for the decision that was made: for PNEUMONIA where the film is called so, else for NORMAL.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn

from pulmo.base.errors import UserError
from pulmo.evaluation.probes.gradcam import enlarge, grad_cam
from pulmo.evaluation.probes.lungs import HOW, find_lungs
from pulmo.evaluation.probes.probe import Probe, Subject
from pulmo.films.labels import LABELS
from pulmo.metrics.bootstrap import Resampling, bootstrap
from pulmo.metrics.estimates import Estimate, estimate, estimate_text, probability_text
from pulmo.metrics.locked import Locked
from pulmo.metrics.ranking import Floats
from pulmo.model.classifier import Classifier
from pulmo.model.feature_map import find_feature_map
from pulmo.reporting.figures import draw_heat_maps
from pulmo.reporting.galleries import HeatMaps

STEPS = {"last layer": 0.0, "last quarter": 0.25, "last half": 0.5, "last three quarters": 0.75, "all layers": 1.0}
ALIKE = 0.5  # mean rank correlation above which the maps of a network without knowledge count as the same maps
SHUFFLED_FILMS = 24
TITLE = "Grad-CAM: what speaks for the decision made"
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


@dataclass(frozen=True)
class Explanation:
    """Heat maps of some films and what can be measured of them; `note` says why there are none, else it is empty."""

    note: str
    gallery: dict[str, list[dict[str, Any]]]  # path, label and prob_pneumonia of each kind of `choose_gallery`
    layer: str | None = None
    grid: tuple[int, ...] | None = None  # (h, w) of the maps
    lungs: Lungs | None = None
    randomisation: Randomisation | None = None
    maps: HeatMaps | None = None  # of the gallery, for a picture

    def add_to(self, content: dict[str, Any]) -> None:
        """The key `explanation`."""
        content["explanation"] = {
            "note": self.note,
            "gallery": self.gallery,
            "layer": self.layer,
            "grid": list(self.grid) if self.grid else None,
            "lungs": {"how": self.lungs.how} | asdict(self.lungs)["shares"] if self.lungs else None,
            "randomisation": asdict(self.randomisation) if self.randomisation else None,
        }

    def doubts(self) -> list[str]:
        """That it looks beside the lungs, and that its maps do not depend on what it learnt."""
        doubts = _doubt_lungs(self.lungs.shares) if self.lungs else []
        if self.randomisation and not self.randomisation.passes:
            doubts.append("Its heat maps hardly change when the network forgets what it learnt: do not read them.")
        return doubts

    def draw(self, folder: Path) -> None:
        """explanation.png: the gallery under its heat maps."""
        if self.maps:
            draw_heat_maps(folder / "explanation.png", self.maps, TITLE)


def explain_films(
    classifier: Classifier,
    images: np.ndarray,
    table: pd.DataFrame,
    locked: Locked,
    films: int,
    resampling: Resampling,
) -> Explanation:
    """Explain decisions on `images`, uint8 (N, S, S), described by the rows of `table`: path, label (0 or 1), patient
    and prob_pneumonia, which `locked` cuts. At most `films` films, drawn by lot, are measured."""
    network, info = classifier.network, classifier.info
    label, probability = table.label.to_numpy(), table.prob_pneumonia.to_numpy()
    called = locked.call(probability)
    direction = np.where(called, 1, -1)
    chosen = choose_gallery(label, probability, locked)
    gallery = {
        kind: table.iloc[rows][["path", "label", "prob_pneumonia"]].to_dict("records") for kind, rows in chosen.items()
    }
    try:
        layer = find_feature_map(network, images[:1], info.mean, info.std)
    except UserError as error:
        return Explanation(error.message, gallery)

    def heat_of(model: nn.Module, rows: np.ndarray) -> np.ndarray:
        return grad_cam(model, images[rows], direction[rows], info.mean, info.std)

    shown = np.concatenate(list(chosen.values()))
    captions = [_caption(kind, film) for kind, kind_films in gallery.items() for film in kind_films]
    heats = [enlarge(heat, images.shape[1]) for heat in heat_of(network, shown)]
    drawn = np.sort(np.random.default_rng(resampling.seed).permutation(len(table))[:films])
    maps = heat_of(network, drawn)
    sample = _Sample(drawn, label[drawn], table.patient.to_numpy()[drawn], called[drawn], maps)
    return Explanation(
        note="",
        gallery=gallery,
        layer=layer,
        grid=maps.shape[1:],
        lungs=_locate_heat(sample, images[drawn], resampling),
        randomisation=_randomise(sample, heat_of, network, resampling),
        maps=HeatMaps(list(images[shown]), heats, captions),
    )


class _Sample(NamedTuple):
    """Films drawn by lot, with their heat maps."""

    rows: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    called: np.ndarray
    maps: np.ndarray


def _locate_heat(sample: _Sample, images: np.ndarray, resampling: Resampling) -> Lungs:
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


def _doubt_lungs(shares: dict[str, HeatShare]) -> list[str]:
    """That the heat lies off the lungs beyond chance, in all films or in those of one answer, or else that it is not
    shown to lie on them."""

    def describe(share: HeatShare) -> str:
        return (
            f"{estimate_text(share.heat)} of the heat lies in them, and they are {share.area['value']:.3f} of the "
            f"film, a difference of {estimate_text(share.excess)}"
        )

    off = {
        name: share for name, share in shares.items() if share.excess["high"] is not None and share.excess["high"] < 0
    }
    doubts = [
        f"Its heat lies off the lungs beyond chance (test films, {name}): {describe(share)}."
        for name, share in off.items()
    ]
    low = shares["all"].excess["low"]
    if "all" not in off and low is not None and low <= 0:
        doubts.append(f"That it looks at the lungs more than chance would is not shown: {describe(shares['all'])}.")
    return doubts


def _randomise(sample: _Sample, heat_of: HeatOf, network: nn.Module, resampling: Resampling) -> Randomisation:
    few = slice(min(SHUFFLED_FILMS, len(sample.rows)))
    maps = sample.maps[few]

    def average(values: Floats) -> Estimate:
        return _mean(values, sample.label[few], sample.patient[few], resampling)

    steps = {}
    for name, share in STEPS.items():
        forgetful = heat_of(shuffle_layers(network, share, resampling.seed), sample.rows[few])
        steps[name] = average(correlate(maps, forgetful))
    between = average(correlate(maps, np.roll(maps, 1, axis=0)))
    left = steps["all layers"]["value"]
    return Randomisation(steps, between, ALIKE, passes=left is None or left < ALIKE)


def choose_gallery(labels: np.ndarray, probabilities: np.ndarray, locked: Locked, each: int = 4) -> dict[str, Any]:
    """Rows of the films to show: `surest right` (half of each class), `surest wrong`, and of the rest `most doubtful`,
    at most `each` of a kind; sureness is the distance from the threshold in log-odds."""
    called = locked.call(probabilities)
    sure = locked.confidence(probabilities)
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


def _mean(values: Floats, labels: np.ndarray, patients: np.ndarray, resampling: Resampling) -> Estimate:
    known = ~np.isnan(values)
    if not known.any():
        return {"value": None, "low": None, "high": None, "films": 0, "patients": 0, "note": "no film has such a map"}
    values, labels, patients = values[known], labels[known], patients[known]

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"mean": weights @ values / weights.sum(axis=1)}

    value, replicates = bootstrap(statistic, labels, patients, *resampling)
    return estimate(float(value["mean"]), replicates["mean"], patients)


def _caption(kind: str, film: dict[str, Any]) -> str:
    return f"{kind}: {LABELS[film['label']]},\nprobability {probability_text(film['prob_pneumonia'], 2)}"


def _measure(subject: Subject) -> Explanation | None:
    films, test = subject.params.explain_films, subject.test
    if not films:
        return None
    images = subject.data.images[test.row]
    return explain_films(subject.classifier, images, test, subject.locked, films, subject.resampling)


PROBE = Probe("explanation", "Where it looks", Path(__file__).with_suffix(".md.jinja"), _measure)
