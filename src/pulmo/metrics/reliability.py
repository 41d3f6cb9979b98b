"""Observed shares of PNEUMONIA beside predicted probabilities, in bins, and the calibration error that they come to."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmo.metrics.bootstrap import check_films
from pulmo.metrics.estimates import estimate_proportion
from pulmo.metrics.ranking import Flags, Floats


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
        "observed": float | None,
        "low": float | None,
        "high": float | None,
        "films": int,
        "patients": int,
        "probability": float,
    },
)


class ReliabilityBins:
    """The bins between `edges` that hold films, by their probability; closed on the right, the first on both sides."""

    def __init__(self, label: Flags, probability: Floats, edges: ArrayLike) -> None:
        self.label = label
        self.probability = probability
        self.edges = np.asarray(edges, dtype=float)
        where = _bin(probability, self.edges)
        self.filled = np.unique(where)
        self.inside = where[:, None] == self.filled
        self._counted = np.hstack([self.inside & label[:, None], self.inside]).astype(float)

    def observe(self, weights: Floats) -> Floats:
        """The share of PNEUMONIA in each filled bin (resamples, bins), NaN where a resample leaves one empty."""
        pneumonia, films = np.split(weights @ self._counted, 2, axis=1)
        with np.errstate(invalid="ignore"):
            shares: Floats = pneumonia / films
        return shares

    def report(self, observed: Floats, replicates: Floats, patient: NDArray[Any]) -> list[Bin]:
        """Each filled bin with its observed share and the 95% interval over patients of whatever class, from what
        `observe` gives of the films (bins,) and of their resamples."""
        rows: list[Bin] = []
        for column, index in enumerate(self.filled):
            films = self.inside[:, column]
            share = estimate_proportion(float(observed[column]), replicates[:, column], patient[films])
            rows.append(
                {
                    "from": float(self.edges[index]),
                    "to": float(self.edges[index + 1]),
                    "observed": share["value"],
                    "low": share["low"],
                    "high": share["high"],
                    "films": share["films"],
                    "patients": share["patients"],
                    "probability": float(self.probability[films].mean()),
                }
            )
        return rows


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, edges: ArrayLike) -> float:
    """Mean over films of |observed share of PNEUMONIA - mean probability| in the bin of the film.

    Bins are closed on the right, the first one on both sides.
    """
    label, probability, _ = check_films(labels, probabilities, np.zeros(len(np.asarray(labels))))
    gaps = np.bincount(_bin(probability, np.asarray(edges)), weights=label - probability)
    return float(np.abs(gaps).sum() / len(label))


def error_with_chance(label: Flags, probability: Floats, patient: NDArray[Any], edges: Floats, seed: int) -> Chance:
    """The expected calibration error, beside what perfect calibration would make of the same probabilities."""
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
