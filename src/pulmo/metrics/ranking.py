"""Ranks of scores, and the metrics that follow from them alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Statistic = Callable[[Floats], dict[str, Floats]]  # weights (resamples, films) -> values (resamples, ...)


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
