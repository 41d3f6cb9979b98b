"""Ranks of scores, and the metrics that follow from them alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Statistic = Callable[[Floats], dict[str, Floats]]  # weights (resamples, films) -> values (resamples, ...)


def weigh(weights: Floats, values: Floats) -> Floats:
    """weights @ values, whose sums round alike whether films lie side by side in memory or not."""
    return np.asfortranarray(weights) @ values


def ranks(scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order from the highest score down, and where in it each distinct score begins."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))


def sum_ties(values: Floats, starts: NDArray[np.int64]) -> Floats:
    """Sums over films that share a score, of values (resamples, films) in the order of `ranks`."""
    return values if len(starts) == values.shape[1] else np.add.reduceat(values, starts, axis=1)


def ranking(labels: Flags, scores: Floats, with_auprc: bool = True) -> Statistic:
    """AUROC and, unless it is not wanted, AUPRC (average precision); tied films share their rank."""
    order, starts = ranks(scores)
    positive = labels[order].astype(float)

    def statistic(weights: Floats) -> dict[str, Floats]:
        weights = weights.take(order, axis=1)
        true, films = sum_ties(weights * positive, starts), sum_ties(weights, starts)
        false, above = films - true, true.cumsum(axis=1)
        positives = above[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = (false * (above - true / 2)).sum(axis=1) / (positives * false.sum(axis=1))
            if not with_auprc:
                return {"auroc": auroc}
            precision = above / np.maximum(films.cumsum(axis=1), 1)
            summands = np.asfortranarray(true * precision)  # in this layout rows are added up one score after the other
            auprc = summands.sum(axis=1) / positives
        return {"auroc": auroc, "auprc": np.where(np.isnan(auroc), np.nan, auprc)}

    return statistic
