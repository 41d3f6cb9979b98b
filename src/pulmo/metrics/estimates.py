"""Values with their 95% intervals, and how they are written."""

import math
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from pulmo.metrics.ranking import Flags, Floats


class ValueInInterval(TypedDict):
    """A value with the ends of its 95% interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


class Estimate(ValueInInterval):
    """A value with its interval, and the n that it is about."""

    films: int
    patients: int
    note: NotRequired[str]  # where something is unusual


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
    defined = replicates[~np.isnan(replicates)]
    if math.isnan(value):
        result["note"] = "undefined: 0/0"
    elif not len(defined) or np.ptp(defined) < 1e-12:
        result["note"] = "no interval: every resample gives the same value"
    else:
        result["low"], result["high"] = (float(bound) for bound in np.percentile(defined, [2.5, 97.5]))
        if len(defined) < len(replicates):
            result["note"] = f"undefined in {len(replicates) - len(defined)} of {len(replicates)} resamples"
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
        result = {**result, "low": float(share.low), "high": float(share.high), "note": note}
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
    films, patients = first["films"] + second["films"], first["patients"] + second["patients"]
    result: Estimate = {"value": None, "low": None, "high": None, "films": films, "patients": patients}
    if first["value"] is None or second["value"] is None:
        return {**result, "note": "one of the two is undefined"}
    value = second["value"] - first["value"]
    if first["low"] is None or first["high"] is None or second["low"] is None or second["high"] is None:
        return {**result, "value": value, "note": "no interval: one of the two has none"}
    down = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    up = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return {**result, "value": value, "low": value - down, "high": value + up}


def number(value: float | None) -> float:
    """The value, for comparisons: an undefined one is NaN, which is neither above nor below anything."""
    return math.nan if value is None else value


def estimate_text(estimate: ValueInInterval, digits: int = 3) -> str:
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
