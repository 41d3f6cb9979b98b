"""The check that a probability of .8 means eight in ten, and the temperature that brings it nearer to that."""

from dataclasses import dataclass
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike

from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.estimates import Estimate, estimate, estimate_proportion
from pulmo.metrics.ranking import Floats, Statistic

BINS = 15
BOUNDS = (0.1, 10.0)


@dataclass(frozen=True)
class Temperature:
    """The divisor of log-odds before they become a probability; note says why where it is not a plain fit."""

    value: float
    note: str = ""


class Chance(TypedDict):
    """A calibration error, and what perfect calibration would stay below in 95% of such sets of films."""

    value: float
    chance_high: float


# The films whose probability lies in one bin: their mean probability, and the observed share of PNEUMONIA.
Bin = TypedDict(
    "Bin",
    {
        "from": float,
        "to": float,
        "observed": float,
        "low": float,
        "high": float,
        "films": int,
        "patients": int,
        "probability": float,
    },
)


class CalibrationErrors(TypedDict):
    """Several measures of how far probabilities are from shares."""

    brier: Estimate
    log_loss: Estimate
    slope: Estimate
    intercept: Estimate
    ece: Chance
    ece_mass: Chance
    bins: list[Bin]


class Calibration(TypedDict):
    """Calibration before and after the temperature."""

    before: CalibrationErrors
    after: CalibrationErrors


def to_probability(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probability of PNEUMONIA from log-odds."""
    from scipy.special import expit  # whose import takes as long as the rest of an answer

    return np.asarray(expit(np.asarray(logits, dtype=np.float64) / temperature), dtype=np.float64)


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> Temperature:
    """The temperature with the least negative log-likelihood on validation, between .1 and 10 (Guo et al. 2017).

    Where films of one class are missing, or every PNEUMONIA film scores above every NORMAL one, no temperature is
    identified (the likelihood only grows as it falls to 0), and it stays at 1.
    """
    from scipy.optimize import minimize_scalar  # which answers need not load

    label, logit, _ = check_films(labels, logits, np.zeros(len(np.asarray(labels))))
    if label.all() or not label.any():
        return Temperature(1.0, "kept at 1: validation holds one class only")
    if logit[label].min() > logit[~label].max():
        return Temperature(1.0, "kept at 1: validation is perfectly separated, so its films do not tell a temperature")
    margin = np.where(label, logit, -logit)
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, -margin / np.exp(log_t)).mean(),
        bounds=np.log(BOUNDS),
        method="bounded",
        options={"xatol": 1e-8},
    )
    value = float(np.exp(found.x))
    at_bound = min(value / BOUNDS[0], BOUNDS[1] / value) < 1.001
    return Temperature(value, f"at the bound of {BOUNDS[0]} to {BOUNDS[1]:g}" if at_bound else "")


def evaluate_calibration(
    labels: ArrayLike, logits: ArrayLike, temperature: float, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> Calibration:
    """{"before": …, "after": …} the temperature, each with estimates of the Brier score, the negative log-likelihood,
    slope and intercept of the logistic regression of the label on the log-odds (ideal: 1 and 0), both ECEs, and bins.
    Patients are resampled whatever their class: how many are ill is part of what calibration claims.

    ECE, on the probability of PNEUMONIA: `ece` over 15 bins of equal width, `ece_mass` over 15 of equal count. Even
    perfect calibration has an ECE above 0, the more so the fewer the films of a bin, and resampling adds to it. So
    instead of an interval each has `chance_high`: labels are drawn 500 times from these probabilities, alike for the
    films of a patient, and binned as the films are; 95% of these ECEs lie below it.
    """
    label, logit, patient = check_films(labels, logits, groups)
    report: dict[str, Any] = {}
    one = np.ones_like(label)  # a single stratum
    regression, regressions = bootstrap(_regression(label, logit), one, patient, resamples, seed)
    for name, t in (("before", 1.0), ("after", temperature)):
        probability = to_probability(logit, t)
        value, replicates = bootstrap(_errors(label, logit / t), one, patient, resamples, seed)
        value |= {"slope": regression["slope"] * t, "intercept": regression["intercept"]}
        replicates |= {"slope": regressions["slope"] * t, "intercept": regressions["intercept"]}
        report[name] = {key: estimate(float(value[key]), replicates[key], patient) for key in value}
        edges, quantiles = np.linspace(0, 1, BINS + 1), np.quantile(probability, np.linspace(0, 1, BINS + 1))
        for key, bounds in (("ece", edges), ("ece_mass", np.unique(quantiles))):
            report[name][key] = _ece_with_chance(label, probability, patient, bounds, seed)
        report[name]["bins"] = reliability_bins(label, probability, edges, patient, resamples, seed)
    return cast(Calibration, report)


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, edges: ArrayLike) -> float:
    """Mean over films of |observed share of PNEUMONIA - mean probability| in the bin of the film.

    Bins are closed on the right, the first one on both sides.
    """
    label, probability, _ = check_films(labels, probabilities, np.zeros(len(np.asarray(labels))))
    gaps = np.bincount(_bin(probability, np.asarray(edges)), weights=label - probability)
    return float(np.abs(gaps).sum() / len(label))


def reliability_bins(
    labels: ArrayLike,
    probabilities: ArrayLike,
    edges: ArrayLike,
    groups: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Bin]:
    """The bins that hold films: from, to, films, patients, mean probability, and the observed share of PNEUMONIA with
    its 95% interval (observed, low, high) over patients of whatever class."""
    label, probability, patient = check_films(labels, probabilities, groups)
    bounds = np.asarray(edges, dtype=float)
    where = _bin(probability, bounds)
    filled = np.unique(where)
    inside = where[:, None] == filled

    def statistic(weights: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore"):
            return {"observed": (weights @ (inside & label[:, None])) / (weights @ inside)}

    values, replicates = bootstrap(statistic, np.ones_like(label), patient, resamples, seed)
    rows = []
    for column, index in enumerate(filled):
        films = inside[:, column]
        share = estimate_proportion(
            float(values["observed"][column]), replicates["observed"][:, column], patient[films]
        )
        row = {"from": float(bounds[index]), "to": float(bounds[index + 1]), "observed": share["value"]}
        row |= {key: share[key] for key in ("low", "high", "films", "patients")}
        rows.append(row | {"probability": float(probability[films].mean())})
    return cast(list[Bin], rows)


def _errors(label: np.ndarray, logit: Floats) -> Statistic:
    squared = (to_probability(logit) - label) ** 2
    loss = np.logaddexp(0, np.where(label, -logit, logit))
    columns = np.stack([squared, loss], axis=1)

    def statistic(weights: Floats) -> dict[str, Floats]:
        means = weights @ columns / weights.sum(axis=1, keepdims=True)
        return {"brier": means[:, 0], "log_loss": means[:, 1]}

    return statistic


def _regression(label: np.ndarray, logit: Floats) -> Statistic:
    """Slope and intercept by Newton's method, for all rows of weights at once; NaN where it does not converge, as when
    the classes are perfectly separated or the log-odds constant."""
    centre, spread = logit.mean(), logit.std()
    x = (logit - centre) / spread if spread > 0 else np.zeros_like(logit)

    def statistic(weights: Floats) -> dict[str, Floats]:
        slope, intercept = np.zeros((2, len(weights)))
        step = np.full((2, len(weights)), np.inf)
        with np.errstate(all="ignore"):
            for _ in range(30):
                p = to_probability(slope[:, None] * x + intercept[:, None])
                error, curve = weights * (label - p), weights * p * (1 - p)
                gradient = error.sum(axis=1), error @ x
                a, b, c = curve.sum(axis=1), curve @ x, curve @ x**2
                step = np.stack([a * gradient[1] - b * gradient[0], c * gradient[0] - b * gradient[1]])
                step = np.clip(step / (a * c - b**2), -2, 2)
                slope, intercept = slope + step[0], intercept + step[1]
                if not (np.abs(step) > 1e-9).any():
                    break
            lost = ~(np.abs(step) <= 1e-6).all(axis=0)
            slope = np.where(lost, np.nan, slope / spread)
        return {"slope": slope, "intercept": np.where(lost, np.nan, intercept - slope * centre)}

    return statistic


def _ece_with_chance(label: np.ndarray, probability: Floats, patient: np.ndarray, edges: Floats, seed: int) -> Chance:
    where = _bin(probability, edges)
    membership = np.eye(where.max() + 1)[where]
    drawn = np.random.default_rng(seed).random((500, patient.max() + 1))[:, patient] < probability
    by_chance = np.abs((drawn - probability) @ membership).sum(axis=1) / len(label)
    return {
        "value": expected_calibration_error(label, probability, edges),
        "chance_high": float(np.percentile(by_chance, 95)),
    }


def _bin(probability: Floats, edges: Floats) -> np.ndarray:
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, max(0, len(edges) - 2))
