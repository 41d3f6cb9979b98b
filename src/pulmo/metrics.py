"""How well scores tell PNEUMONIA (label 1) from NORMAL (label 0), every number with its interval and its n.

Intervals are 95% percentile intervals over resampled patients, not films: the films of one child resemble each other.
Whatever depends on the films only through how often each one counts is written once, as a function of weights, and
serves for the value (every weight 1) and for all resamples (one row of weights each) alike.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Statistic = Callable[[Floats], dict[str, Floats]]  # weights (resamples, films) -> values (resamples, ...)
Estimate = dict[str, Any]  # value, low, high (None where undefined), films, patients; note where something is unusual

METRICS = ("auroc", "auprc", "accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity", "ppv", "npv", "mcc")
_PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
_NEEDS = {
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
_BLOCK = 2_000_000  # weights held at once: 16 MB, whatever the number of films


def check_films(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[Flags, Floats, NDArray[np.int64]]:
    """Labels as booleans, scores as floats, patient keys as numbers from 0; ValueError for what cannot be evaluated."""
    label, score, group = np.asarray(labels), np.asarray(scores, dtype=np.float64), np.asarray(groups)
    if not label.ndim == score.ndim == group.ndim == 1 or not len(label) == len(score) == len(group):
        raise ValueError(
            f"labels, scores and patients must be equally long: {label.shape}, {score.shape}, {group.shape}"
        )
    if not len(label):
        raise ValueError("there is no film to evaluate")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 (NORMAL) or 1 (PNEUMONIA)")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not finite numbers")
    return label == 1, score, np.unique(group, return_inverse=True)[1]


def resample(labels: ArrayLike, groups: ArrayLike, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each film counts, (block, films) at a time: patients drawn with replacement within their class.

    Patients with films of both classes are a class of their own, so every resample holds both labels.
    """
    label, patient = np.asarray(labels) == 1, np.unique(np.asarray(groups), return_inverse=True)[1]
    stratum = np.zeros(patient.max() + 1, dtype=int)
    np.bitwise_or.at(stratum, patient, np.where(label, 2, 1))
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(label))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.zeros((rows, len(stratum)))
        for members in (np.flatnonzero(stratum == code) for code in np.unique(stratum)):
            drawn = generator.integers(len(members), size=(rows, len(members)))
            drawn += np.arange(rows)[:, None] * len(members)
            counts[:, members] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts[:, patient]


def bootstrap(
    statistic: Statistic, labels: ArrayLike, groups: ArrayLike, resamples: int, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The statistic's values, and the same with one row per resample of patients."""
    value = {name: array[0] for name, array in statistic(np.ones((1, len(np.asarray(labels))))).items()}
    blocks = [statistic(weights) for weights in resample(labels, groups, resamples, seed)]
    return value, {name: np.concatenate([block[name] for block in blocks]) for name in value}


def ranks(scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order from the highest score down, and where in it each distinct score begins."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))


def ranking(labels: Flags, scores: Floats) -> Statistic:
    """AUROC and AUPRC (average precision); tied films share their rank."""
    order, starts = ranks(scores)
    positive = labels[order]

    def statistic(weights: Floats) -> dict[str, Floats]:
        weights = weights[:, order]
        true, false = (np.add.reduceat(weights * chosen, starts, axis=1) for chosen in (positive, ~positive))
        above, called = true.cumsum(axis=1), (true + false).cumsum(axis=1)
        positives = above[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = (false * (above - true / 2)).sum(axis=1) / (positives * (called[:, -1] - positives))
            precision = np.where(called > 0, above / called, 0)
            auprc = (true * precision).sum(axis=1) / positives
        return {"auroc": auroc, "auprc": np.where(np.isnan(auroc), np.nan, auprc)}

    return statistic


def rates(labels: Flags, decisions: Flags) -> Statistic:
    """Everything that follows from the confusion matrix; 0/0 is NaN, for MCC too."""
    cells = np.stack([labels & decisions, ~labels & decisions, labels & ~decisions, ~labels & ~decisions], axis=1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        tp, fp, fn, tn = (weights @ cells.astype(float)).T
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
    """Every metric of METRICS: the ranks from `scores`, the rest from `decisions`."""
    ranked, decided = ranking(labels, scores), rates(labels, decisions)
    return lambda weights: ranked(weights) | decided(weights)


def estimate(value: float, replicates: Floats, patients: NDArray[Any]) -> Estimate:
    """Value and 95% percentile interval, with the n behind it: `patients` has the patient of each film it is about.

    Resamples without a value are dropped and counted; an interval of width 0 would claim certainty and is None.
    """
    result: Estimate = {
        "value": None if math.isnan(value) else float(value),
        "low": None,
        "high": None,
        "films": len(patients),
        "patients": len(np.unique(patients)),
    }
    found = replicates[~np.isnan(replicates)]
    if math.isnan(value):
        result["note"] = "undefined: 0/0"
    elif not len(found) or np.ptp(found) < 1e-12:
        result["note"] = "no interval: every resample gives the same value"
    else:
        result["low"], result["high"] = (float(bound) for bound in np.percentile(found, [2.5, 97.5]))
        if len(found) < len(replicates):
            result["note"] = f"undefined in {len(replicates) - len(found)} of {len(replicates)} resamples"
    return result


def estimate_proportion(
    value: float, replicates: Floats, patients: NDArray[Any], trials: int | None = None
) -> Estimate:
    """`estimate`, but exactly 0 or 1, which no resample can widen, gets a Wilson interval over `trials`, or else over
    the patients."""
    from scipy.stats import binomtest  # which training need not load

    result = estimate(value, replicates, patients)
    if value in (0, 1):
        trials = result["patients"] if trials is None else trials
        share = binomtest(round(value * trials), trials).proportion_ci(method="wilson")
        note = f"every resample gives the same value: Wilson interval over {trials} patients"
        result |= {"low": float(share.low), "high": float(share.high), "note": note}
    return result


def estimate_auroc(value: float, replicates: Floats, labels: Flags, patients: NDArray[Any]) -> Estimate:
    """`estimate_proportion` of an AUROC; exactly 0 or 1 counts pairs of patients that have no patient in common.

    As many such pairs as there are patients in the smaller class are independent trials, each of which a model with an
    AUROC of A ranks rightly with probability A; that all pairs are ranked rightly is no likelier than that these are.
    """
    pairs = min(len(np.unique(patients[chosen])) for chosen in (labels, ~labels))
    return estimate_proportion(value, replicates, patients, pairs)


def estimate_difference(first: Estimate, second: Estimate) -> Estimate:
    """Second less first, of two sets without a patient in common, with a 95% interval from both of theirs (Newcombe's
    square-and-add, 1998), so that a value of exactly 0 or 1 does not count as certain."""
    result: Estimate = {"value": None, "low": None, "high": None}
    result |= {key: first[key] + second[key] for key in ("films", "patients")}
    if first["value"] is None or second["value"] is None:
        return result | {"note": "one of the two is undefined"}
    result["value"] = second["value"] - first["value"]
    if first["low"] is None or second["low"] is None:
        return result | {"note": "no interval: one of the two has none"}
    down = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    up = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return result | {"low": result["value"] - down, "high": result["value"] + up}


def estimate_text(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """`0.977 (0.961–0.989)`, or `-0.012 (-0.020 to 0.001)` where a dash would stand beside a minus sign.

    A dash alone where there is no value, no parenthesis where there is no interval.
    """
    if estimate["value"] is None:
        return "–"
    value, low, high = (
        f"{number or 0:.{digits}f}" for number in (estimate["value"], estimate["low"], estimate["high"])
    )
    between = " to " if "-" in f"{value}{low}{high}" else "–"
    return value if estimate["low"] is None else f"{value} ({low}{between}{high})"


def probability_text(value: float, digits: int = 3) -> str:
    """A probability or threshold, with up to two digits more where it is neither 0 nor 1; `> 0.99999` beyond them."""
    for shown in range(digits, digits + 3):
        if not 0 < value < 1 or 0 < float(f"{value:.{shown}f}") < 1:
            return f"{value:.{shown}f}"
    return f"< {10**-shown:.{shown}f}" if value < 0.5 else f"> {1 - 10**-shown:.{shown}f}"


def discriminate(
    labels: ArrayLike, scores: ArrayLike, decisions: ArrayLike, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> tuple[dict[str, Estimate], dict[str, Floats]]:
    """Estimates of every metric of METRICS, and their replicates (resamples,) for whoever needs a function of them.

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
    for name in METRICS:
        about_patients = patient[about.get(name, np.ones_like(label))]
        if name == "auroc":
            estimates[name] = estimate_auroc(float(values[name]), replicates[name], label, patient)
        else:
            measure = estimate_proportion if name in _PROPORTIONS else estimate
            estimates[name] = measure(float(values[name]), replicates[name], about_patients)
        if math.isnan(values[name]):
            estimates[name]["note"] = _NEEDS[name]
    return estimates, replicates
