"""The effect of a change of threshold, prevalence, cost or willingness to answer: curves for plots and reports.

Every function returns lists of equal length under plain names; low and high are a pointwise 95% band from resampled
patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.estimates import Estimate, estimate, number
from pulmo.metrics.ranking import Floats, ranks, sum_ties

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class RiskCoverage:
    """The curve of `risk_coverage` and what it comes to."""

    coverage: list[float]
    risk: list[float]
    aurc: Estimate
    aurc_random: float
    aurc_best: float


def roc_curve(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0) -> Curve:
    """Corners of the ROC curve (fpr, tpr), and the band of tpr (low, high) over the grid band_fpr."""
    label, score, patient = check_films(labels, scores, groups)
    if label.all() or not label.any():
        raise ValueError("a ROC curve needs films of both classes")
    order, starts = ranks(score)
    classes = np.stack([~label[order], label[order]]).astype(float)
    grid = np.linspace(0, 1, 101)

    def corners(weights: Floats) -> Floats:
        sums = sum_ties(weights * classes, starts).cumsum(axis=1)
        return np.pad(sums / sums[:, -1:], ((0, 0), (1, 0)))

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"tpr": np.array([np.interp(grid, *corners(row)) for row in weights.take(order, axis=1)])}

    fpr, tpr = corners(np.ones(len(label)))
    _, replicates = bootstrap(statistic, label, patient, resamples, seed)
    low, high = np.percentile(replicates["tpr"], [2.5, 97.5], axis=0)
    return _lists(fpr=fpr, tpr=tpr, band_fpr=grid, low=low, high=high)


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> Curve:
    """Recall and precision at every distinct score, from the highest down."""
    label, score, _ = check_films(labels, scores, np.zeros(len(np.asarray(labels))))
    if not label.any():
        raise ValueError("a precision-recall curve needs a PNEUMONIA film")
    order, starts = ranks(score)
    true = np.add.reduceat(label[order].astype(float), starts).cumsum()
    return _lists(recall=true / true[-1], precision=true / np.append(starts[1:], len(label)))


def prevalence_curve(
    estimates: Mapping[str, Estimate], replicates: Mapping[str, Floats], prevalences: Sequence[float] | None = None
) -> Curve:
    """PPV and NPV that this sensitivity and specificity mean where PNEUMONIA is rarer or commoner (default 1 to 60%).

    `estimates` and `replicates` are what `metrics.discriminate` returns. A sensitivity or specificity of exactly 0 or
    1, alike in every resample, enters the band with the ends of its own interval instead. Undefined values are NaN.
    """
    prevalence = np.linspace(0.01, 0.60, 60) if prevalences is None else np.asarray(prevalences, dtype=float)

    def predict(end: Literal["value", "low", "high"]) -> tuple[Floats, Floats]:
        sens, spec = (
            np.full((1, 1), number(getattr(estimates[name], end)))
            if end == "value" or estimates[name].value in (0, 1)
            else replicates[name][:, None]
            for name in ("sensitivity", "specificity")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ppv = sens * prevalence / (sens * prevalence + (1 - spec) * (1 - prevalence))
            npv = spec * (1 - prevalence) / (spec * (1 - prevalence) + (1 - sens) * prevalence)
        return ppv, npv

    curve = {"prevalence": prevalence}
    ends = predict("value"), predict("low"), predict("high")
    for name, value, low, high in zip(("ppv", "npv"), *ends, strict=True):
        curve |= {name: value[0], f"{name}_low": _band(low)[0], f"{name}_high": _band(high)[1]}
    return _lists(**curve)


def decision_curve(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> Curve:
    """Net benefit (true positives per film, less false positives weighed by the odds of the threshold probability) of
    treating by the model, against treating all; treating none is 0. At the prevalence of these films
    (Vickers and Elkin 2006)."""
    label, probability, patient = check_films(labels, probabilities, groups)
    threshold = np.linspace(0.01, 0.99, 99)
    odds = threshold / (1 - threshold)
    gain = np.where(label[:, None], 1.0, -odds)  # of treating each film, at each threshold
    treated = gain * (probability[:, None] >= threshold)

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"model": weights @ treated / weights.sum(axis=1, keepdims=True)}

    value, replicates = bootstrap(statistic, label, patient, resamples, seed)
    low, high = _band(replicates["model"])
    treat_all = (np.ones((1, len(label))) @ gain / len(label))[0]
    return _lists(threshold=threshold, model=value["model"], treat_all=treat_all, low=low, high=high)


def risk_coverage(
    labels: ArrayLike,
    decisions: ArrayLike,
    confidence: ArrayLike,
    groups: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> RiskCoverage:
    """Error rate among the surest films, by the share of films answered, and its mean over all shares (AURC).

    `aurc_random` is what answering films in random order reaches (the error rate), `aurc_best` what a perfect order
    would. Films tied in confidence share their errors evenly.
    """
    label, sure, patient = check_films(labels, confidence, groups)
    order, starts = ranks(sure)
    wrong = (label != np.asarray(decisions, dtype=bool))[order].astype(float)
    sizes = np.diff(np.append(starts, len(label)))
    films = np.arange(1, len(label) + 1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        weights = weights.take(order, axis=1)
        errors, answered = weights * wrong, weights.cumsum(axis=1)
        if len(starts) < len(label):
            shared = sum_ties(errors, starts) / np.maximum(sum_ties(weights, starts), 1)
            errors = weights * np.repeat(shared, sizes, axis=1)
        risk = errors.cumsum(axis=1) / np.maximum(answered, 1)
        return {"aurc": (weights * risk).sum(axis=1) / answered[:, -1], "risk": risk}

    value = statistic(np.ones((1, len(label))))
    _, replicates = bootstrap(lambda weights: {"aurc": statistic(weights)["aurc"]}, label, patient, resamples, seed)
    return RiskCoverage(
        coverage=(films / len(label)).tolist(),
        risk=value["risk"][0].tolist(),
        aurc=estimate(float(value["aurc"][0]), replicates["aurc"], patient),
        aurc_random=float(wrong.mean()),
        aurc_best=float((np.sort(wrong).cumsum() / films).mean()),
    )


def _band(replicates: Floats) -> Floats:
    """Pointwise 2.5 and 97.5% over the resamples that have a value; NaN where none has."""
    with np.errstate(all="ignore"):
        filled = np.where(np.isnan(replicates).all(axis=0), 0.0, replicates)
        band = np.nanpercentile(filled, [2.5, 97.5], axis=0)
    return np.where(np.isnan(replicates).all(axis=0), np.nan, band)


def _lists(**arrays: Floats) -> Curve:
    return {name: array.tolist() for name, array in arrays.items()}
