"""Two models on the same films: what differs beyond chance, and on which films."""

import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from pulmo.base.errors import UserError
from pulmo.base.files import unquote
from pulmo.metrics.bootstrap import bootstrap, check_films
from pulmo.metrics.discrimination import METRIC_NAMES, discrimination
from pulmo.metrics.estimates import Estimate, estimate
from pulmo.metrics.ranking import Floats


@dataclass(frozen=True)
class MetricChange:
    """A metric of two models, and what the second has more."""

    a: float
    b: float
    difference: Estimate


@dataclass(frozen=True)
class DeLong:
    """Two correlated AUROCs, and the second less the first with its 95% interval and two-sided p."""

    auroc_a: float
    auroc_b: float
    difference: float
    low: float
    high: float
    z: float
    p: float


@dataclass(frozen=True)
class McNemar:
    """Films that only one of two models decides rightly, and the two-sided p that this is chance."""

    only_a_right: int
    only_b_right: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same films; `disagreements` are the rows of the films that get different decisions."""

    films: int
    patients: int
    metrics: dict[str, MetricChange]  # by name of METRIC_NAMES
    delong: DeLong | None  # None with fewer than two films of a class
    mcnemar: McNemar
    disagreements: list[int]


def read_predictions(text: str) -> pd.DataFrame:
    """The table of reports/predictions.csv; names stay text, be they NA or 007."""
    try:
        table = pd.read_csv(io.StringIO(text), dtype={"path": str, "patient": str}, keep_default_na=False)
        finite = "logit" not in table or bool(np.isfinite(table.logit.astype(float)).all())
    except ValueError as error:  # no table, or no numbers
        raise UserError(f"the predictions are damaged ({error})", "run the experiment again") from error
    if not finite:
        raise UserError("the predictions are damaged (a logit is no finite number)", "run the experiment again")
    return unquote(table)


def pair_predictions(a: pd.DataFrame, b: pd.DataFrame, kind: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables (columns path, label, …) sorted by path; UserError, naming the `kind` of set, unless they hold the
    same films and labels."""
    first, second = (table.sort_values("path", ignore_index=True) for table in (a, b))
    if only := sorted(set(first.path) ^ set(second.path)):
        raise UserError(
            f"the two {kind} sets differ: {len(only)} films are in one of them only, such as {only[0]}",
            "compare runs with the same data and split",
        )
    if differing := first.path[first.label != second.label].tolist():
        raise UserError(
            f"the two {kind} sets label {len(differing)} films differently, such as {differing[0]}",
            "compare experiments on the same films and labels",
        )
    return first, second


def compare_models(
    labels: ArrayLike,
    groups: ArrayLike,
    scores: tuple[ArrayLike, ArrayLike],
    decisions: tuple[ArrayLike, ArrayLike],
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Second model less first, for (first, second) scores and decisions on the same films; the differences have their
    intervals from the same resampled patients."""
    label, first, patient = check_films(labels, scores[0], groups)
    second = check_films(labels, scores[1], groups)[1]
    called_a, called_b = (np.asarray(called, dtype=bool) for called in decisions)
    of_a, of_b = discrimination(label, first, called_a), discrimination(label, second, called_b)

    def both(weights: Floats) -> dict[str, Floats]:
        a, b = of_a(weights), of_b(weights)
        return {f"{side} {name}": values[name] for side, values in (("a", a), ("b", b)) for name in METRIC_NAMES}

    values, replicates = bootstrap(both, label, patient, resamples, seed)
    metrics: dict[str, MetricChange] = {}
    for name in METRIC_NAMES:
        a, b = float(values[f"a {name}"]), float(values[f"b {name}"])
        difference = estimate(b - a, replicates[f"b {name}"] - replicates[f"a {name}"], patient)
        metrics[name] = MetricChange(a, b, difference)
    return Comparison(
        films=len(label),
        patients=len(np.unique(patient)),
        metrics=metrics,
        delong=delong_test(label, first, second) if 2 <= label.sum() <= len(label) - 2 else None,
        mcnemar=mcnemar_test(label, called_a, called_b),
        disagreements=np.flatnonzero(called_a != called_b).tolist(),
    )


def delong_test(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """Difference of two correlated AUROCs (second less first), its 95% interval and two-sided p, films taken as
    independent (DeLong et al. 1988, by the midranks of Sun and Xu 2014)."""
    label, a, patient = check_films(labels, first, np.zeros(len(np.asarray(labels))))
    b = check_films(labels, second, patient)[1]
    m, n = int(label.sum()), int((~label).sum())
    if min(m, n) < 2:
        raise ValueError("DeLong's test needs at least two films of each class")
    scores = np.stack([a, b])
    everyone = stats.rankdata(scores, axis=1)
    positives = stats.rankdata(scores[:, label], axis=1)
    negatives = stats.rankdata(scores[:, ~label], axis=1)
    beaten = (everyone[:, label] - positives) / n  # share of NORMAL films below each PNEUMONIA film
    beating = (everyone[:, ~label] - negatives) / m  # share of PNEUMONIA films below each NORMAL film
    auroc = beaten.mean(axis=1)
    difference = float(auroc[1] - auroc[0])
    variance = sum(float(np.var(part[1] - part[0], ddof=1)) / part.shape[1] for part in (beaten, beating))
    error = float(np.sqrt(variance))
    if error < 1e-12:
        z, p = (0.0, 1.0) if abs(difference) < 1e-12 else (float(np.copysign(np.inf, difference)), 0.0)
    else:
        z = difference / error
        p = float(2 * stats.norm.sf(abs(z)))
    half = stats.norm.ppf(0.975) * error
    low, high = float(difference - half), float(difference + half)
    return DeLong(float(auroc[0]), float(auroc[1]), difference, low, high, z, p)


def mcnemar_test(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> McNemar:
    """Films that only one of two models decides rightly, and the exact two-sided p that this is chance."""
    label, a, b = (np.asarray(values, dtype=bool) for values in (labels, first, second))
    only_a, only_b = int(((a == label) & (b != label)).sum()), int(((a != label) & (b == label)).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))
