"""Measures of telling PNEUMONIA from NORMAL by scores: ranks, and everything that follows from the confusion matrix."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.estimates import Estimate, estimate, estimate_auroc, estimate_proportion
from pulmo.metrics.ranking import Flags, Floats, Statistic, ranking

METRIC_NAMES = (
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "mcc",
)
_PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
NEEDS = {
    "auroc": "needs films of both classes",
    "auprc": "needs films of both classes",
    "balanced_accuracy": "needs films of both classes",
    "f1": "needs a PNEUMONIA film or a film called so",
    "sensitivity": "needs a PNEUMONIA film",
    "specificity": "needs a NORMAL film",
    "ppv": "needs a film called PNEUMONIA",
    "npv": "needs a film called NORMAL",
    "mcc": "needs both classes and both answers",
}


def rates(labels: Flags, decisions: Flags) -> Statistic:
    """Everything that follows from the confusion matrix; 0/0 is NaN, for MCC too."""
    cells = np.stack(
        [labels & decisions, ~labels & decisions, labels & ~decisions, ~labels & ~decisions], axis=1
    ).astype(float)

    def statistic(weights: Floats) -> dict[str, Floats]:
        tp, fp, fn, tn = (weights @ cells).T
        with np.errstate(divide="ignore", invalid="ignore"):
            sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
            return {
                "accuracy": (tp + tn) / (tp + fp + fn + tn),
                "balanced_accuracy": (sensitivity + specificity) / 2,
                "f1": 2 * tp / (2 * tp + fp + fn),
                "sensitivity": sensitivity,
                "specificity": specificity,
                "ppv": tp / (tp + fp),
                "npv": tn / (tn + fn),
                "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            }

    return statistic


def discrimination(labels: Flags, scores: Floats, decisions: Flags) -> Statistic:
    """All METRIC_NAMES: the ranks from `scores`, the rest from `decisions`."""
    ranked, decided = ranking(labels, scores), rates(labels, decisions)
    return lambda weights: ranked(weights) | decided(weights)


def measure_auroc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The AUROC of `discriminate`, alone."""
    label, score, patient = check_films(labels, scores, groups)
    value, replicates = bootstrap(ranking(label, score, with_auprc=False), label, patient, resamples, seed)
    result = estimate_auroc(float(value["auroc"]), replicates["auroc"], label, patient)
    return result if math.isfinite(value["auroc"]) else replace(result, note=NEEDS["auroc"])


def discriminate(
    labels: ArrayLike, scores: ArrayLike, decisions: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """Estimates of all METRIC_NAMES, and their replicates (resamples,) for whoever needs a function of them.

    `films` and `patients` count what the metric speaks about: for sensitivity the PNEUMONIA films, for PPV the films
    called PNEUMONIA. A proportion or AUROC of exactly 0 or 1 gets a Wilson interval over its patients instead.
    """
    label, score, patient = check_films(labels, scores, groups)
    decided = np.asarray(decisions, dtype=bool)
    if decided.shape != label.shape:
        raise ValueError(f"decisions must be as long as labels: {decided.shape}, {label.shape}")
    values, replicates = bootstrap(discrimination(label, score, decided), label, patient, resamples, seed)
    about = {"sensitivity": label, "specificity": ~label, "ppv": decided, "npv": ~decided}
    estimates = {}
    for name in METRIC_NAMES:
        about_patients = patient[about.get(name, np.ones_like(label))]
        if name == "auroc":
            estimates[name] = estimate_auroc(float(values[name]), replicates[name], label, patient)
        else:
            measure = estimate_proportion if name in _PROPORTIONS else estimate
            estimates[name] = measure(float(values[name]), replicates[name], about_patients)
        if math.isnan(values[name]):
            estimates[name] = replace(estimates[name], note=NEEDS[name])
    return estimates, replicates
