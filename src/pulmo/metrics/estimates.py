"""Values with their 95% intervals, and how they are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmo.metrics.ranking import Flags, Floats


@dataclass(frozen=True)
class ValueInInterval:
    """A value with the ends of its 95% interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate(ValueInInterval):
    """A value with its interval, and the n that it is about."""

    films: int
    patients: int
    note: str | None = None  # where something is unusual


def estimate(value: float, replicates: Floats, patients: NDArray[Any]) -> Estimate:
    """Value and 95% percentile interval, with the n behind it: `patients` has the patient of each film it is about.

    Resamples without a value are dropped and counted; an interval of width 0 would claim certainty and is None.
    """
    size = len(patients), len(np.unique(patients))
    if math.isnan(value):
        return Estimate(None, None, None, *size, "undefined: 0/0")
    defined = replicates[~np.isnan(replicates)]
    if not len(defined) or np.ptp(defined) < 1e-12:
        return Estimate(float(value), None, None, *size, "no interval: every resample gives the same value")
    low, high = (float(bound) for bound in np.percentile(defined, [2.5, 97.5]))
    lost = len(replicates) - len(defined)
    note = f"undefined in {lost} of {len(replicates)} resamples" if lost else None
    return Estimate(float(value), low, high, *size, note)


def estimate_proportion(
    value: float, replicates: Floats, patients: NDArray[Any], trials: int | None = None
) -> Estimate:
    """`estimate`, but exactly 0 or 1, which no resample can widen, gets a Wilson interval over `trials`, or else over
    the patients."""
    from scipy.stats import binomtest  # which training need not load

    result = estimate(value, replicates, patients)
    if value in (0, 1):
        trials = result.patients if trials is None else trials
        share = binomtest(round(value * trials), trials).proportion_ci(method="wilson")
        note = f"every resample gives the same value: Wilson interval over {trials} patients"
        result = replace(result, low=float(share.low), high=float(share.high), note=note)
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
    size = first.films + second.films, first.patients + second.patients
    if first.value is None or second.value is None:
        return Estimate(None, None, None, *size, "one of the two is undefined")
    value = second.value - first.value
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Estimate(value, None, None, *size, "no interval: one of the two has none")
    down = math.hypot(second.value - second.low, first.high - first.value)
    up = math.hypot(second.high - second.value, first.value - first.low)
    return Estimate(value, value - down, value + up, *size)


def to_json(part: Any) -> Any:
    """A part of a report as JSON holds it: a map for each dataclass, without the note of an estimate that has none."""
    if isinstance(part, Mapping):
        return {key: to_json(value) for key, value in part.items() if value is not None or key != "note"}
    if isinstance(part, list | tuple):
        return [to_json(item) for item in part]
    return to_json(vars(part)) if is_dataclass(part) else part


def number(value: float | None) -> float:
    """The value, for comparisons: an undefined one is NaN, which is neither above nor below anything."""
    return math.nan if value is None else value


def estimate_text(estimate: ValueInInterval, digits: int = 3) -> str:
    """`0.977 (0.961–0.989)`, or `-0.012 (-0.020 to 0.001)` where a dash would stand beside a minus sign.

    A dash alone where there is no value, no parenthesis where there is no interval.
    """
    if estimate.value is None:
        return "–"
    value, low, high = (f"{number or 0:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    between = " to " if "-" in f"{value}{low}{high}" else "–"
    return value if estimate.low is None else f"{value} ({low}{between}{high})"


def probability_text(value: float, digits: int = 3) -> str:
    """A probability or threshold, with up to two digits more where it is neither 0 nor 1; `> 0.99999` beyond them."""
    for shown in range(digits, digits + 3):
        if not 0 < value < 1 or 0 < float(f"{value:.{shown}f}") < 1:
            return f"{value:.{shown}f}"
    return f"< {10**-shown:.{shown}f}" if value < 0.5 else f"> {1 - 10**-shown:.{shown}f}"
