"""Observed shares of PNEUMONIA beside predicted probabilities, in bins, and the calibration error that they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmo.metrics.bootstrap import BLOCK, check_films
from pulmo.metrics.estimates import estimate_proportion
from pulmo.metrics.ranking import Flags, Floats

_CHANCES = 500  # sets of labels drawn


@dataclass(frozen=True)
class Chance:
    """A calibration error, and what perfect calibration would stay below in 95% of such sets of films."""

    value: float
    chance_high: float


@dataclass(frozen=True)
class Bin:
    """The films whose probability lies above one edge and up to the other: their mean probability, and the observed
    share of PNEUMONIA with the ends of its 95% interval, None where every resample gives the same."""

    above: float
    up_to: float
    observed: float | None
    low: float | None
    high: float | None
    films: int
    patients: int
    probability: float


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
                Bin(
                    above=float(self.edges[index]),
                    up_to=float(self.edges[index + 1]),
                    observed=share.value,
                    low=share.low,
                    high=share.high,
                    films=share.films,
                    patients=share.patients,
                    probability=float(self.probability[films].mean()),
                )
            )
        return rows


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, edges: ArrayLike) -> float:
    """Mean over films of |observed share of PNEUMONIA - mean probability| in the bin of the film.

    Bins are closed on the right, the first one on both sides.
    """
    label, probability, _ = check_films(labels, probabilities, np.zeros(len(np.asarray(labels))))
    gaps = np.bincount(_bin(probability, np.asarray(edges)), weights=label - probability)
    return float(np.abs(gaps).sum() / len(label))


def errors_with_chance(
    label: Flags, probability: Floats, patient: NDArray[Any], edges: Sequence[Floats], seed: int
) -> list[Chance]:
    """The expected calibration error by the bins between each of `edges`, beside what perfect calibration would make
    of the same probabilities."""
    bins = [_bin(probability, ends) for ends in edges]
    memberships = [np.eye(where.max() + 1)[where] for where in bins]
    generator, block = np.random.default_rng(seed), max(1, BLOCK // len(label))
    by_chance: list[list[Floats]] = [[] for _ in edges]
    for start in range(0, _CHANCES, block):
        dice = generator.random((min(block, _CHANCES - start), patient.max() + 1))[:, patient]
        gaps = (dice < probability) - probability
        for errors, membership in zip(by_chance, memberships, strict=True):
            errors.append(np.abs(gaps @ membership).sum(axis=1) / len(label))
    return [
        Chance(expected_calibration_error(label, probability, ends), float(np.percentile(np.concatenate(errors), 95)))
        for ends, errors in zip(edges, by_chance, strict=True)
    ]


def _bin(probability: Floats, edges: Floats) -> np.ndarray:
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, max(0, len(edges) - 2))
