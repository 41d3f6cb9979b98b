"""The check that a probability of .8 means eight in ten, and the temperature that brings it nearer to that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.estimates import Estimate, estimate
from pulmo.metrics.ranking import Flags, Floats, Statistic, weigh
from pulmo.metrics.reliability import Bin, Chance, ReliabilityBins, errors_with_chance

BINS = 15
BOUNDS = (0.1, 10.0)


@dataclass(frozen=True)
class Temperature:
    """The divisor of log-odds before they become a probability; note says why where it is not a plain fit."""

    value: float
    note: str = ""


@dataclass(frozen=True)
class CalibrationErrors:
    """Several measures of how far probabilities are from shares."""

    brier: Estimate
    log_loss: Estimate
    slope: Estimate
    intercept: Estimate
    ece: Chance
    ece_mass: Chance
    bins: list[Bin]


@dataclass(frozen=True)
class Calibration:
    """Calibration before and after the temperature."""

    before: CalibrationErrors
    after: CalibrationErrors


def to_probability(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probability of PNEUMONIA from log-odds."""
    with np.errstate(over="ignore"):  # the exponential of log-odds far below 0 is infinite, and the probability 0
        return np.asarray(1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64) / temperature)))


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> Temperature:
    """The temperature with the least negative log-likelihood on validation (Guo et al. 2017), from 1 to 10.

    Where films of one class are missing, or every PNEUMONIA film scores above every NORMAL one, no temperature is
    identified (the likelihood only grows as it falls to 0), and it stays at 1. So it does where it would make the
    probabilities surer: validation that is told apart too well says so, and other films then pay (docs/shift.md).
    """
    from scipy.optimize import minimize_scalar  # which answers need not load

    label, logit, _ = check_films(labels, logits, np.zeros(len(np.asarray(labels))))
    if label.all() or not label.any():
        return Temperature(1.0, "kept at 1: validation holds one class only")
    if logit[label].min() > logit[~label].max():
        return Temperature(1.0, "kept at 1: validation is perfectly separated, so its films do not tell a temperature")
    margin = np.where(label, logit, -logit)
    best = minimize_scalar(
        lambda log_t: np.logaddexp(0, -margin / np.exp(log_t)).mean(),
        bounds=np.log(BOUNDS),
        method="bounded",
        options={"xatol": 1e-8},
    )
    value = float(np.exp(best.x))
    if value < 1:
        return Temperature(1.0, f"kept at 1: {value:.2g}, the best on validation, would make the answers surer")
    return Temperature(value, f"at the bound of {BOUNDS[1]:g}" if BOUNDS[1] / value < 1.001 else "")


def evaluate_calibration(
    labels: ArrayLike, logits: ArrayLike, temperature: float, groups: ArrayLike, resamples: int = 2000, seed: int = 0
) -> Calibration:
    """Before and after the temperature: estimates of the Brier score, of the negative log-likelihood, and of the
    slope and intercept of the logistic regression of the label on the log-odds (ideal: 1 and 0), both ECEs, and bins.
    Patients are resampled whatever their class: how many are ill is part of what calibration claims.

    ECE, on the probability of PNEUMONIA: `ece` over 15 bins of equal width, `ece_mass` over 15 of equal count. Even
    perfect calibration has an ECE above 0, the more so the fewer the films of a bin, and resampling adds to it. So
    instead of an interval each has `chance_high`: labels are drawn 500 times from these probabilities, alike for the
    films of a patient, and binned as the films are; 95% of these ECEs lie below it.
    """
    label, logit, patient = check_films(labels, logits, groups)
    regression = _regression(label, logit)
    scaled = {"before": _Scaled(label, logit, 1.0), "after": _Scaled(label, logit, temperature)}

    def statistic(weights: Floats) -> dict[str, Floats]:  # in one: to draw the patients costs more than the sums
        both = {f"{name} {key}": v for name, films in scaled.items() for key, v in films.measure(weights).items()}
        return regression(weights) | both

    value, replicates = bootstrap(statistic, np.ones_like(label), patient, resamples, seed)
    before, after = (films.report(name, value, replicates, patient, seed) for name, films in scaled.items())
    return Calibration(before, after)


def measure_calibration_error(
    labels: ArrayLike, logits: ArrayLike, temperature: float, groups: ArrayLike, seed: int = 0
) -> Chance:
    """The `ece` of `evaluate_calibration` at a temperature. Rows may be films in several renderings: those of a patient
    share the luck of the draw."""
    label, logit, patient = check_films(labels, logits, groups)
    probability = to_probability(logit, temperature)
    (error,) = errors_with_chance(label, probability, patient, [np.linspace(0, 1, BINS + 1)], seed)
    return error


class _Scaled:
    """Films at one temperature."""

    def __init__(self, label: Flags, logit: Floats, temperature: float) -> None:
        self.label = label
        self.temperature = temperature
        self.probability = to_probability(logit, temperature)
        self.bins = ReliabilityBins(label, self.probability, np.linspace(0, 1, BINS + 1))
        squared = (self.probability - label) ** 2
        loss = np.logaddexp(0, np.where(label, -logit, logit) / temperature)
        self.errors = np.stack([squared, loss], axis=1)

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """All that depends on how often each film counts, but for the regression."""
        means = weigh(weights, self.errors) / weights.sum(axis=1, keepdims=True)
        return {"brier": means[:, 0], "log_loss": means[:, 1], "observed": self.bins.observe(weights)}

    def report(
        self, name: str, value: dict[str, Floats], replicates: dict[str, Floats], patient: NDArray[Any], seed: int
    ) -> CalibrationErrors:
        """Its part of the report, from what `measure` gave under keys that begin with `name`, and the regression."""

        def about(key: str, scale: float = 1.0) -> Estimate:
            return estimate(float(value[key] * scale), replicates[key] * scale, patient)

        quantiles = np.unique(np.quantile(self.probability, np.linspace(0, 1, BINS + 1)))
        edges = [self.bins.edges, quantiles]
        ece, ece_mass = errors_with_chance(self.label, self.probability, patient, edges, seed)
        observed = f"{name} observed"
        return CalibrationErrors(
            brier=about(f"{name} brier"),
            log_loss=about(f"{name} log_loss"),
            slope=about("slope", self.temperature),
            intercept=about("intercept"),
            ece=ece,
            ece_mass=ece_mass,
            bins=self.bins.report(value[observed], replicates[observed], patient),
        )


def _regression(label: Flags, logit: Floats) -> Statistic:
    """Slope and intercept by Newton's method, for all rows of weights at once; NaN where it does not converge, as when
    the classes are perfectly separated or the log-odds constant."""
    centre, spread = logit.mean(), logit.std()
    x = (logit - centre) / spread if spread > 0 else np.zeros_like(logit)
    ones = np.ones_like(x)
    first, second = np.stack([ones, x], axis=1), np.stack([ones, x, x**2], axis=1)
    observed = label[:, None] * first

    def solve(weights: Floats, start: Floats) -> tuple[Floats, Flags]:
        """(intercept, slope) of each row, and whether it converged."""
        intercept, slope = np.tile(start[:, None], len(weights))
        wanted, step = weigh(weights, observed), np.full((2, len(weights)), np.inf)
        with np.errstate(all="ignore"):
            for _ in range(30):
                p = np.multiply.outer(-slope, x)  # in place from here on: to make such an array takes longer than a sum
                p -= intercept[:, None]
                np.exp(p, out=p)
                p += 1
                np.divide(1, p, out=p)
                expected = weights * p
                gradient = (wanted - expected @ first).T
                p *= expected
                a, b, c = (np.subtract(expected, p, out=p) @ second).T
                step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]])
                step = np.clip(step / (a * c - b**2), -2, 2)
                intercept, slope = intercept + step[0], slope + step[1]
                if not (np.abs(step) > 1e-9).any():
                    break
        return np.stack([intercept, slope]), (np.abs(step) <= 1e-6).all(axis=0)

    whole, converged = solve(np.ones((1, len(x))), np.zeros(2))
    start = whole[:, 0] if converged[0] else np.zeros(2)  # resamples lie near the whole

    def statistic(weights: Floats) -> dict[str, Floats]:
        (intercept, slope), converged = solve(weights, start)
        slope = np.where(converged, slope / spread, np.nan) if spread > 0 else np.full(len(weights), np.nan)
        return {"slope": slope, "intercept": np.where(converged, intercept - slope * centre, np.nan)}

    return statistic
