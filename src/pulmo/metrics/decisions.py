"""The threshold of the score, and when to leave the answer to a person: both chosen on validation and then locked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulmo.base.errors import UserError
from pulmo.metrics.bootstrap import RESAMPLING, Resampling, bootstrap, check_films
from pulmo.metrics.discrimination import rates
from pulmo.metrics.estimates import Estimate, estimate_proportion
from pulmo.metrics.ranking import Flags, Floats, ranks, sum_ties

POLICIES = ("min_sensitivity", "youden", "youden_rendered", "f1", "fixed")
_BELOW = 1e-3  # of the lowest score: more than two runtimes differ by


@dataclass(frozen=True)
class OperatingPoint:
    """A film whose score is `threshold` or more is called PNEUMONIA; low and high are where the threshold falls in 95%
    of resamples of the patients it was chosen on."""

    policy: str
    threshold: float
    low: float
    high: float


@dataclass(frozen=True)
class Abstention:
    """Films with a score strictly between low and high are left unanswered; low = high answers all."""

    target_error: float
    low: float
    high: float
    reached: bool  # whether validation allows the target at any coverage


def choose_operating_point(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    policy: str,
    min_sensitivity: float = 0.95,
    threshold: float = 0.5,
    resampling: Resampling = RESAMPLING,
) -> OperatingPoint:
    """The highest threshold with at least `min_sensitivity`, or the best Youden index or F1, or `threshold` as given.

    `youden_rendered` is `youden` of films that come in several renderings (`evaluation.probes.renderings`), each of
    them a row: with every rendering of every film, that index is the mean of the index over the renderings.

    Candidates lie midway between neighbouring distinct scores, so that rounding in another runtime flips no film; of
    equally good ones the highest is taken. The lowest candidate lies a thousandth below the lowest score: everything is
    called PNEUMONIA.
    """
    label, score, patient = check_films(labels, scores, groups)
    if policy not in POLICIES:
        raise ValueError(f"operating_point {policy!r} is unknown; choose one of {', '.join(POLICIES)}")
    if policy == "fixed":
        return OperatingPoint(policy, threshold, threshold, threshold)
    if label.all() or not label.any():
        only = "PNEUMONIA" if label.all() else "NORMAL"
        raise UserError(
            f"the operating point needs films of both classes, but validation holds only {only}",
            "change the section split of params.yaml so that val has both classes",
        )
    order, starts = ranks(score)
    positive, candidates = label[order], _cuts(score[order][starts])

    def statistic(weights: Floats) -> dict[str, Floats]:
        weights = weights.take(order, axis=1)
        true, false = (sum_ties(weights * chosen, starts).cumsum(axis=1) for chosen in (positive, ~positive))
        if policy == "min_sensitivity":
            good = (true >= min_sensitivity * true[:, -1:] - 1e-9).astype(float)
        else:
            good = _goodness(policy, true, false)
        return {"threshold": candidates[good.argmax(axis=1)]}

    value, replicates = bootstrap(statistic, label, patient, *resampling)
    low, high = np.percentile(replicates["threshold"], [2.5, 97.5])
    return OperatingPoint(policy, float(value["threshold"]), float(low), float(high))


def _cuts(upper: Floats) -> Floats:
    """Thresholds midway between neighbouring distinct scores, from the highest down, and one just below the lowest."""
    lower = np.append(upper[1:], upper[-1] - 2 * _BELOW * abs(upper[-1]))
    middle = (upper + lower) / 2
    return np.where(middle > lower, middle, upper)  # neighbouring floats have nothing between them


def _goodness(policy: str, true: Floats, false: Floats) -> Floats:
    """The Youden index or F1 of counts of true and false positives (resamples, thresholds), rounded: ties must not hang
    on the last bit."""
    positives, negatives = true[:, -1:], false[:, -1:]
    if policy == "f1":
        return np.round(2 * true / (positives + true + false), 12)
    return np.round(true / positives - false / negatives, 12)


def is_called(probabilities: ArrayLike, threshold: float) -> Flags:
    """Which films are called PNEUMONIA: those whose probability reaches the threshold."""
    called: Flags = np.asarray(probabilities, dtype=float) >= threshold
    return called


def confidence(probabilities: ArrayLike, threshold: float) -> Floats:
    """The distance of a probability from the threshold, on the log-odds scale: 0 at the threshold, more is surer."""
    return np.abs(to_log_odds(np.asarray(probabilities, dtype=float)) - to_log_odds(np.asarray(threshold)))


def choose_abstention(labels: ArrayLike, probabilities: ArrayLike, threshold: float, target_error: float) -> Abstention:
    """The narrowest band around the threshold outside of which at most `target_error` of the answers are wrong."""
    label, probability, _ = check_films(labels, probabilities, np.zeros(len(np.asarray(labels))))
    sure = confidence(probability, threshold)
    order, starts = ranks(sure)
    wrong = label != is_called(probability, threshold)
    answered = np.append(starts[1:], len(label))
    good = np.flatnonzero(np.add.reduceat(wrong[order].astype(float), starts).cumsum() / answered <= target_error)
    if not len(good):
        return Abstention(target_error, 0.0, 1.0, reached=False)
    if good[-1] == len(starts) - 1:
        return Abstention(target_error, threshold, threshold, reached=True)
    inner, outer = (sure[order][starts[good[-1] + step]] for step in (1, 0))
    width, middle = (inner + outer) / 2, to_log_odds(np.asarray(threshold))
    low, high = 1 / (1 + np.exp(-(middle - width))), 1 / (1 + np.exp(-(middle + width)))
    return Abstention(target_error, float(low), float(high), reached=True)


def is_answered(probabilities: ArrayLike, abstention: Abstention) -> Flags:
    """Which films get an answer; none where the target was out of reach."""
    probability = np.asarray(probabilities, dtype=float)
    return abstention.reached & ((probability <= abstention.low) | (probability >= abstention.high))


def evaluate_abstention(
    labels: ArrayLike,
    decisions: ArrayLike,
    answered: ArrayLike,
    groups: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Coverage (share of films answered), and error, sensitivity and specificity of the answers."""
    sure = np.asarray(answered, dtype=bool)
    label, _, patient = check_films(labels, sure, groups)
    decided = rates(label, np.asarray(decisions, dtype=bool))

    def statistic(weights: Floats) -> dict[str, Floats]:
        of_answers = decided(weights * sure)
        return {
            "coverage": weights @ sure / weights.sum(axis=1),
            "error": 1 - of_answers["accuracy"],
            "sensitivity": of_answers["sensitivity"],
            "specificity": of_answers["specificity"],
        }

    values, replicates = bootstrap(statistic, label, patient, resamples, seed)
    about = {"coverage": np.ones_like(sure), "error": sure, "sensitivity": sure & label, "specificity": sure & ~label}
    return {
        name: estimate_proportion(float(values[name]), replicates[name], patient[chosen])
        for name, chosen in about.items()
    }


def to_log_odds(probability: Floats) -> Floats:
    """Log-odds of probabilities, which are finite for 0 and 1 too."""
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.log(clipped / (1 - clipped))
