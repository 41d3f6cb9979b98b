"""Heat maps of some films, and what speaks for and against them.

A heat map speaks for the decision that was made: for PNEUMONIA where the film is called so, else for NORMAL.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from pulmo.base.errors import UserError
from pulmo.evaluation.probes.gradcam import enlarge, grad_cam
from pulmo.evaluation.probes.heat_evidence import Lungs, Randomisation, Sample, doubt_lungs, locate_heat, randomise
from pulmo.evaluation.probes.probe import Probe, Subject
from pulmo.films.rows.labels import LABELS
from pulmo.films.rows.stack import Films, FilmStack
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.estimates import probability_text
from pulmo.metrics.locked import Locked
from pulmo.model.classifier import Classifier
from pulmo.model.feature_map import find_feature_map
from pulmo.reporting.figures import draw_heat_maps
from pulmo.reporting.galleries import HeatMaps
from pulmo.reporting.report import Finding

TITLE = "Grad-CAM: what speaks for the decision made"


@dataclass(frozen=True)
class Explanation(Finding):
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
            "grid": self.grid,
            "lungs": {"how": self.lungs.how, **self.lungs.shares} if self.lungs else None,
            "randomisation": self.randomisation,
        }

    def doubts(self) -> list[str]:
        """That it looks beside the lungs, and that its maps do not depend on what it learnt."""
        doubts = doubt_lungs(self.lungs.shares) if self.lungs else []
        if self.randomisation and not self.randomisation.passes:
            doubts.append("Its heat maps hardly change when the network forgets what it learnt: do not read them.")
        return doubts

    def draw(self, folder: Path) -> None:
        """explanation.png: the gallery under its heat maps."""
        if self.maps:
            draw_heat_maps(folder / "explanation.png", self.maps, TITLE)


def explain_films(
    classifier: Classifier,
    images: Films,
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
    sample = Sample(drawn, label[drawn], table.patient.to_numpy()[drawn], called[drawn], maps)
    return Explanation(
        note="",
        gallery=gallery,
        layer=layer,
        grid=maps.shape[1:],
        lungs=locate_heat(sample, images[drawn], resampling),
        randomisation=randomise(sample, heat_of, network, resampling),
        maps=HeatMaps(list(images[shown]), heats, captions),
    )


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


def _caption(kind: str, film: dict[str, Any]) -> str:
    return f"{kind}: {LABELS[film['label']]},\nprobability {probability_text(film['prob_pneumonia'], 2)}"


def _measure(subject: Subject) -> Explanation | None:
    films, test = subject.params.explain_films, subject.test
    if not films:
        return None
    images = FilmStack(subject.data.images, test.row)
    return explain_films(subject.classifier, images, test, subject.locked, films, subject.resampling)


PROBE = Probe("explanation", "Where it looks", Path(__file__).with_suffix(".md.jinja"), _measure)
