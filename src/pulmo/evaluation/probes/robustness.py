"""The effect on the decision of image changes that leave the diagnosis alone: ten changes, five severities each.

Changes are made to preprocessed films, uint8 (S, S). Where one has two directions (turn left or right, widen or
narrow), each film keeps the one it drew through all severities. Polarity knows no half-way: its severity is the share
of films that arrive inverted, as when software ignores the tag that says so.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from pulmo.evaluation.probes.probe import Probe, Subject
from pulmo.metrics.bootstrap import Resampling, bootstrap, check_films
from pulmo.metrics.discrimination import rates
from pulmo.metrics.estimates import Estimate, estimate_auroc, estimate_proportion
from pulmo.metrics.ranking import Flags, Floats, ranking
from pulmo.reporting.figures import draw_robustness
from pulmo.reporting.plots import Level

MANY_FLIPS = 0.1
Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # one film (S, S), strength, its dice


@dataclass(frozen=True)
class ImageChange:
    """One kind of change, with the strengths of its five severities and what they are measured in."""

    name: str
    unit: str
    strengths: tuple[float, float, float, float, float]
    apply: Change


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
class Robustness:
    """Results under every change of CHANGES."""

    films: int
    of: int  # films that they were drawn from
    clean: dict[str, Estimate]  # auroc, sensitivity and specificity
    changes: list[ChangeReport]
    worst: str | None  # the change with the lowest AUROC at the middle severity; None where no AUROC is defined

    shown: ClassVar = (2, 3, 5)  # severities in the card; the first is mild: few decisions should flip

    def add_to(self, content: dict[str, Any]) -> None:
        """The key `robustness`."""
        content["robustness"] = asdict(self)

    def doubts(self) -> list[str]:
        """Decisions that a mild change flips."""
        mild = {row.name: row.severities[self.shown[0] - 1].flipped["value"] for row in self.changes}
        shaken = [f"{name} ({share:.0%})" for name, share in mild.items() if share > MANY_FLIPS]
        return [f"Mild changes of the image flip many decisions: {', '.join(shaken)}."] if shaken else []

    def draw(self, folder: Path) -> None:
        """robustness.png: AUROC and flipped decisions by severity."""
        changes = {row.name: [Level(at.level, at.auroc, at.flipped) for at in row.severities] for row in self.changes}
        draw_robustness(folder / "robustness.png", changes, self.clean["auroc"])


def measure_robustness(
    predict: Callable[[np.ndarray], np.ndarray],
    call: Callable[[Floats], Flags],
    images: np.ndarray,
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
    middle = {row.name: row.severities[2].auroc["value"] for row in rows}
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


def draw_rows(labels: np.ndarray, films: int, seed: int) -> np.ndarray:
    """Sorted rows of at most `films` films with the class balance of all; the same seed draws the same ones."""
    if len(labels) <= films:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(np.flatnonzero(labels == value)) for value in (1, 0))
    count = round(films * len(positive) / len(labels))
    count = min(max(count, min(1, len(positive))), films - min(1, len(negative)))  # a rare class is not lost
    return np.sort(np.concatenate([positive[:count], negative[: films - count]]))


def change_films(images: np.ndarray, change: ImageChange, strength: float, seed: int) -> np.ndarray:
    """Every film (N, S, S) changed with `strength`; its dice are thrown anew, alike for every strength."""
    dice = np.random.default_rng(seed).spawn(len(images))
    return np.stack([change.apply(image, strength, own) for image, own in zip(images, dice, strict=True)])


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


def _jpeg(image: np.ndarray, quality: float, dice: np.random.Generator) -> np.ndarray:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded


def _blur(image: np.ndarray, sigma: float, dice: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def _noise(image: np.ndarray, spread: float, dice: np.random.Generator) -> np.ndarray:
    return _to_gray(image + spread * dice.standard_normal(image.shape, dtype=np.float32))


def _gamma(image: np.ndarray, ratio: float, dice: np.random.Generator) -> np.ndarray:
    table = 255 * (np.arange(256) / 255) ** _either(ratio, dice)
    return cv2.LUT(image, _to_gray(table))


def _contrast(image: np.ndarray, factor: float, dice: np.random.Generator) -> np.ndarray:
    middle = float(image.mean())
    return _to_gray(middle + factor * (image.astype(np.float32) - middle))


def _rotate(image: np.ndarray, degrees: float, dice: np.random.Generator) -> np.ndarray:
    middle = (len(image) - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), degrees if dice.random() < 0.5 else -degrees, 1)
    return _warp(image, turn)


def _crop(image: np.ndarray, lost: float, dice: np.random.Generator) -> np.ndarray:
    size = len(image)
    kept = max(1, round(size * (1 - lost)))
    top, left = (int(share * (size - kept + 1)) for share in dice.random(2))
    return cv2.resize(image[top : top + kept, left : left + kept], (size, size), interpolation=cv2.INTER_LINEAR)


def _aspect(image: np.ndarray, ratio: float, dice: np.random.Generator) -> np.ndarray:
    factor, middle = _either(ratio, dice), (len(image) - 1) / 2
    return _warp(image, np.array([[factor, 0, middle * (1 - factor)], [0, 1, 0]]))


def _resolution(image: np.ndarray, kept: float, dice: np.random.Generator) -> np.ndarray:
    size = len(image)
    side = max(1, round(size * kept))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _invert(image: np.ndarray, strength: float, dice: np.random.Generator) -> np.ndarray:
    return 255 - image


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=0)


def _either(ratio: float, dice: np.random.Generator) -> float:
    return ratio if dice.random() < 0.5 else 1 / ratio


def _to_gray(values: np.ndarray) -> np.ndarray:
    gray: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return gray


POLARITY = ImageChange("polarity", "share of films inverted, the others untouched", (0.2, 0.4, 0.6, 0.8, 1.0), _invert)
CHANGES = (
    ImageChange("JPEG quality", "quality", (80, 60, 40, 20, 10), _jpeg),
    ImageChange("blur", "sigma in pixels", (0.5, 1, 1.5, 2, 3), _blur),
    ImageChange("noise", "standard deviation in gray levels of 255", (2, 5, 10, 15, 25), _noise),
    ImageChange("gamma", "exponent, or 1 over it", (1.1, 1.25, 1.5, 1.75, 2), _gamma),
    ImageChange("contrast", "factor about the film's mean", (0.85, 0.7, 0.55, 0.4, 0.25), _contrast),
    ImageChange("rotation", "degrees to either side, corners black", (2, 5, 10, 15, 20), _rotate),
    ImageChange("crop", "share of the side lost, anywhere", (0.05, 0.1, 0.15, 0.2, 0.3), _crop),
    ImageChange("aspect", "widened, or narrowed between black bars", (1.05, 1.1, 1.2, 1.3, 1.5), _aspect),
    ImageChange("resolution", "share of the pixels along a side", (0.75, 0.5, 0.35, 0.25, 0.15), _resolution),
    POLARITY,
)


def _measure(subject: Subject) -> Robustness | None:
    films, test = subject.params.robustness_films, subject.test
    if not films:
        return None
    return measure_robustness(
        subject.predict,
        subject.locked.call,
        subject.data.images[test.row],
        test.label,
        test.patient,
        films,
        subject.resampling,
    )


PROBE = Probe("robustness", "Robustness", Path(__file__).with_suffix(".md.jinja"), _measure)
