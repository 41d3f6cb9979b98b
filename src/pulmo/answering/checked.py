"""Measurements in bf16 that change no decision: whatever comes near one is measured in fp32 too, and that counts."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pulmo.base.process import tell
from pulmo.package.inference import BATCH

# Gray films (N, S, S) to log-odds before calibration and distance from the train films, float64 (N, 2)
Measure = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

# A measurement this near to a value at which the answer changes is repeated: log-odds, and distance. bf16 moved the
# log-odds of real films by up to .21 where a decision lay, and distances by up to .10 near the limit (docs/answers.md).
MARGINS = np.array([0.5, 0.5])


class Checked:
    """Measures in bf16, and in fp32 the first films and those near a decision; safe to use from many threads.

    Where the two lie apart by more than half of the margin, bf16 is not used again.
    """

    def __init__(self, quick: Measure, exact: Measure, edges: Sequence[NDArray[np.float64]]) -> None:
        """`edges`: the values at which the answer changes, of log-odds and of distance."""
        self._quick, self._exact, self._edges = quick, exact, edges
        self._unseen = BATCH  # films that are measured in both ways, however clear they are
        self.trusted = True

    def __call__(self, films: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Log-odds and distance (N, 2) of films (N, S, S)."""
        if not self.trusted:
            return self._exact(films)
        measured = self._quick(films)
        doubtful = self._is_doubtful(measured)
        doubtful[: self._unseen] = True
        self._unseen = max(0, self._unseen - len(films))
        if doubtful.any():
            exact = self._exact(films[doubtful])
            if self._lie_apart(measured[doubtful], exact):
                self.trusted = False
                tell("warning: bf16 lies too far from fp32 for this model; fp32 answers from now on")
                return self._exact(films)
            measured[doubtful] = exact
        return measured

    def _is_doubtful(self, measured: NDArray[np.float64]) -> NDArray[np.bool_]:
        doubtful = np.zeros(len(measured), bool)
        for values, edges, margin in zip(measured.T, self._edges, MARGINS, strict=True):
            doubtful |= ~(np.abs(values[:, None] - edges) > margin).all(axis=1)  # also where it is no number
        return doubtful

    def _lie_apart(self, measured: NDArray[np.float64], exact: NDArray[np.float64]) -> bool:
        """True where a difference could have changed a decision; how far a value lies beyond the edges is no matter."""
        for pair, edges, margin in zip(np.stack([measured, exact]).T, self._edges, MARGINS, strict=True):
            if edges.size:
                near = np.clip(np.nan_to_num(pair), edges.min() - margin, edges.max() + margin)  # (N, 2)
                if (np.abs(near[:, 0] - near[:, 1]) > margin / 2).any():
                    return True
        return False
