"""The distance of a film from those that a network learnt from, measured on the network's own features, in NumPy.

At each depth the mean feature maps of the train films have a mean and a precision; the squared Mahalanobis distances
of a film at all depths are multiplied, so that no depth outweighs the others. It tells films of other body parts and
photographs from chest films, and chest films of other ages and machines from those of home, but not the two apart.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pulmo.base.errors import UserError

Floats = NDArray[np.floating[Any]]  # float32 in the file, float64 once it is read
_MEAN, _PRECISION, _LIMIT = "mean", "precision", "limit"
_LEAST = 1e-12  # a distance of 0 has no logarithm


@dataclass(frozen=True)
class Familiarity:
    """Means (channels,) and precisions (channels, channels) of the train films at each depth, shallow first, and the
    distance beyond which a film is unlike them."""

    means: Sequence[Floats]
    precisions: Sequence[Floats]
    limit: float

    def measure(self, stages: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Distances (N,) of films by their features (N, channels) at each depth: the sum of the logarithms."""
        depths = zip(stages, self.means, self.precisions, strict=True)
        logs = [np.log(np.maximum(_LEAST, _square(*depth))) for depth in depths]
        return np.asarray(np.sum(logs, axis=0))

    def is_beyond(self, distances: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True for each film that is farther than the limit, by its distance; also where no distance can be told."""
        return np.asarray(~(distances <= self.limit))

    def to_bytes(self) -> bytes:
        """As an .npz file, which holds nothing but numbers."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {_LIMIT: np.float64(self.limit)}
        for place, (mean, precision) in enumerate(zip(self.means, self.precisions, strict=True), start=1):
            arrays |= {f"{_MEAN}{place}": np.float32(mean), f"{_PRECISION}{place}": np.float32(precision)}
        np.savez(content, **arrays)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """From what `to_bytes` gave; UserError for anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                places = range(1, 1 + sum(name.startswith(_MEAN) for name in arrays.files))
                # in the precision that distances are computed in, so that no film waits for the conversion
                means, precisions = (
                    [arrays[f"{kind}{place}"].astype(np.float64) for place in places] for kind in (_MEAN, _PRECISION)
                )
                return cls(means, precisions, float(arrays[_LIMIT]))
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
            raise UserError("the package's familiarity.npz cannot be read", "copy the package again") from None


def _square(features: NDArray[Any], mean: Floats, precision: Floats) -> NDArray[np.float64]:
    away = features.astype(np.float64) - mean
    return np.asarray(((away @ np.asarray(precision, np.float64)) * away).sum(axis=1))
