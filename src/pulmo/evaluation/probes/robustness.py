"""The effect on the decision of image changes that leave the diagnosis alone: ten changes, five severities each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from pulmo.evaluation.probes.image_changes import CHANGES, POLARITY, ImageChange, change_films
from pulmo.evaluation.probes.probe import Probe, Subject, draw_rows
from pulmo.films.rows.stack import Films, FilmStack
from pulmo.metrics.bootstrap import Resampling, bootstrap, check_films
from pulmo.metrics.discrimination import rates
from pulmo.metrics.estimates import Estimate, estimate_auroc, estimate_proportion, number
from pulmo.metrics.ranking import Flags, Floats, ranking
from pulmo.reporting.figures import draw_robustness
from pulmo.reporting.plots import Level
from pulmo.reporting.report import Finding

MANY_FLIPS = 0.1


@dataclass(frozen=True)
class Severity:
    """Results under one strength of a change; `flipped` is the share of decisions that it turns over."""

    severity: int
    level: float
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    flipped: Estimate
    to_pneumonia: int  # films of it
    to_normal: int


@dataclass(frozen=True)
class ChangeReport:
    """Results under one kind of change."""

    name: str
    unit: str
    severities: list[Severity]


@dataclass(frozen=True)
class Robustness(Finding):
    """Results under every change of CHANGES."""

    films: int
    of: int  # films that they were drawn from
    clean: dict[str, Estimate]  # auroc, sensitivity and specificity
    changes: list[ChangeReport]
    worst: str | None  # the change with the lowest AUROC at the middle severity; None where no AUROC is defined

    shown: ClassVar = (2, 3, 5)  # severities in the card; the first is mild: few decisions should flip

    def add_to(self, content: dict[str, Any]) -> None:
        """The key `robustness`."""
        content["robustness"] = self

    def doubts(self) -> list[str]:
        """Decisions that a mild change flips."""
        mild = {row.name: row.severities[self.shown[0] - 1].flipped.value for row in self.changes}
        shaken = [f"{name} ({share:.0%})" for name, share in mild.items() if number(share) > MANY_FLIPS]
        return [f"Mild changes of the image flip many decisions: {', '.join(shaken)}."] if shaken else []

    def draw(self, folder: Path) -> None:
        """robustness.png: AUROC and flipped decisions by severity."""
        changes = {row.name: [Level(at.level, at.auroc, at.flipped) for at in row.severities] for row in self.changes}
        draw_robustness(folder / "robustness.png", changes, self.clean["auroc"])


def measure_robustness(
    predict: Callable[[np.ndarray], np.ndarray],
    call: Callable[[Floats], Flags],
    images: Films,
    labels: ArrayLike,
    groups: ArrayLike,
    films: int,
    resampling: Resampling,
) -> Robustness:
    """AUROC, sensitivity, specificity and the share of flipped decisions under every change of CHANGES.

    `predict` maps uint8 (N, S, S) to scores (N,), `call` those to decisions; `groups` are patients. At most `films` of
    the images are used, drawn with the class balance of all of them.
    """
    seed = resampling.seed
    label, _, patient = check_films(labels, np.zeros(len(images)), groups)
    chosen = draw_rows(label, films, seed)
    label, patient, subset = label[chosen], patient[chosen], np.ascontiguousarray(images[chosen])
    clean = np.asarray(predict(subset), dtype=np.float64)

    def measure(severity: int, level: float, scores: Floats) -> Severity:
        called = call(clean), call(scores)
        return Severity(severity, level, *_compare(label, patient, scores, called, resampling))

    rows: list[ChangeReport] = []
    for change in tqdm(CHANGES, desc="robustness", unit="change", disable=None):
        scored = enumerate(_scores(change, subset, clean, predict, seed), start=1)
        severities = [measure(severity, level, scores) for severity, (level, scores) in scored]
        rows.append(ChangeReport(change.name, change.unit, severities))
    middle = {row.name: row.severities[2].auroc.value for row in rows}
    defined = {name: float(value) for name, value in middle.items() if value is not None}
    untouched = measure(0, 0, clean)
    return Robustness(
        films=len(chosen),
        of=len(images),
        clean={name: getattr(untouched, name) for name in ("auroc", "sensitivity", "specificity")},
        changes=rows,
        worst=min(defined, key=lambda name: defined[name]) if defined else None,
    )


def _compare(
    label: Flags, patient: np.ndarray, scores: Floats, called: tuple[Flags, Flags], resampling: Resampling
) -> tuple[Estimate, Estimate, Estimate, Estimate, int, int]:
    """AUROC, sensitivity and specificity of the scores, the share of films `called` otherwise than before, and how many
    of them to either side."""
    before, after = called
    flipped = after != before
    ranked, decided = ranking(label, scores), rates(label, after)

    def statistic(weights: Floats) -> dict[str, Floats]:
        share = {"flipped": weights @ flipped / weights.sum(axis=1)}
        return ranked(weights) | decided(weights) | share

    values, replicates = bootstrap(statistic, label, patient, *resampling)
    about = {"sensitivity": patient[label], "specificity": patient[~label], "flipped": patient}
    shares = {name: estimate_proportion(float(values[name]), replicates[name], who) for name, who in about.items()}
    auroc = estimate_auroc(float(values["auroc"]), replicates["auroc"], label, patient)
    to_pneumonia, to_normal = int((flipped & after).sum()), int((flipped & before).sum())
    return auroc, shares["sensitivity"], shares["specificity"], shares["flipped"], to_pneumonia, to_normal


def _scores(
    change: ImageChange, images: np.ndarray, clean: Floats, predict: Callable[[np.ndarray], np.ndarray], seed: int
) -> list[tuple[float, Floats]]:
    if change.name != POLARITY.name:
        return [
            (strength, np.asarray(predict(change_films(images, change, strength, seed)), dtype=np.float64))
            for strength in change.strengths
        ]
    inverted = np.asarray(predict(change_films(images, change, 1.0, seed)), dtype=np.float64)
    rank = np.random.default_rng(seed).permutation(len(images))  # one prediction serves every share
    return [(share, np.where(rank < share * len(images), inverted, clean)) for share in change.strengths]


def _measure(subject: Subject) -> Robustness | None:
    films, test = subject.params.robustness_films, subject.test
    if not films:
        return None
    harmony = subject.classifier.info.harmony
    return measure_robustness(
        lambda images: subject.predict(harmony.apply(images)),  # as on the way to any answer
        subject.locked.call,
        FilmStack(subject.data.images, test.row),
        test.label,
        test.patient,
        films,
        subject.resampling,
    )


PROBE = Probe("robustness", "Robustness", Path(__file__).with_suffix(".md.jinja"), _measure)
