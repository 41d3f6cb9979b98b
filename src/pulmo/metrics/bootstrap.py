"""Measures of how well scores tell PNEUMONIA (label 1) from NORMAL (label 0), every number with its interval and its n.

Intervals are 95% percentile intervals over resampled patients, not films: the films of one child resemble each other.
Whatever depends on the films only through how often each one counts is written once, as a function of weights, and
serves for the value (every weight 1) and for all resamples (one row of weights each) alike.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulmo.metrics.ranking import Flags, Floats, Statistic

BLOCK = 2_000_000  # weights held at once: 16 MB, whatever the number of films


class Resampling(NamedTuple):
    """The number of times that patients are drawn anew for an interval, and the seed of these draws."""

    resamples: int = 2000
    seed: int = 0


RESAMPLING = Resampling()


def check_films(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[Flags, Floats, NDArray[np.int64]]:
    """Labels as booleans, scores as floats, patient keys as numbers from 0; ValueError for what cannot be evaluated."""
    label, score, group = np.asarray(labels), np.asarray(scores, dtype=np.float64), np.asarray(groups)
    if not label.ndim == score.ndim == group.ndim == 1 or not len(label) == len(score) == len(group):
        raise ValueError(
            f"labels, scores and patients must be equally long: {label.shape}, {score.shape}, {group.shape}"
        )
    if not len(label):
        raise ValueError("there is no film to evaluate")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 (NORMAL) or 1 (PNEUMONIA)")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not finite numbers")
    return label == 1, score, np.unique(group, return_inverse=True)[1]


def resample(labels: ArrayLike, groups: ArrayLike, resamples: int, seed: int) -> Iterator[Floats]:
    """The weights of the films, (block, films) at a time: how often each film counts when patients are drawn with
    replacement within their class.

    Patients with films of both classes are a class of their own, so every resample holds both labels.
    """
    label, patient = np.asarray(labels) == 1, np.unique(np.asarray(groups), return_inverse=True)[1]
    stratum = np.zeros(patient.max() + 1, dtype=int)
    np.bitwise_or.at(stratum, patient, np.where(label, 2, 1))
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // len(label))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.zeros((rows, len(stratum)))
        for members in (np.flatnonzero(stratum == code) for code in np.unique(stratum)):
            drawn = generator.integers(len(members), size=(rows, len(members)))
            drawn += np.arange(rows)[:, None] * len(members)
            counts[:, members] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts.take(patient, axis=1)  # counts[:, patient] would lie column by column, which sums pay for


def bootstrap(
    statistic: Statistic, labels: ArrayLike, groups: ArrayLike, resamples: int, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The statistic's values, and the same with one row per resample of patients. Of many films each core takes a
    block of resamples at a time."""
    from pulmo.base.process import usable_cores  # whose psutil an answer does not need

    value = {name: array[0] for name, array in statistic(np.ones((1, len(np.asarray(labels))))).items()}
    cores, pending, blocks = usable_cores(), deque[Future[dict[str, Floats]]](), list[dict[str, Floats]]()
    with ThreadPoolExecutor(cores) as pool:
        for weights in resample(labels, groups, resamples, seed):
            pending.append(pool.submit(statistic, weights))
            if len(pending) > cores:
                blocks.append(pending.popleft().result())
        blocks += [future.result() for future in pending]
    return value, {name: np.concatenate([block[name] for block in blocks]) for name in value}
