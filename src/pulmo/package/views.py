"""The views of a film that are scored together, in NumPy; `pulmo.model.scoring.move_films` is the same in PyTorch."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def move_films(gray: NDArray[Any], mirrored: bool, degrees: float, zoom: float) -> NDArray[np.float32]:
    """Gray images (N, S, S) mirrored, turned about their middle and enlarged, float32; what comes from outside
    continues the edge."""
    moved = np.ascontiguousarray(gray[:, :, ::-1] if mirrored else gray, dtype=np.float32)
    if not degrees and zoom == 1:
        return moved
    corners, shares = _sampling(gray.shape[1], degrees, zoom)
    flat = moved.reshape(len(gray), gray.shape[1] ** 2)
    result = sum(flat[:, corner] * share for corner, share in zip(corners, shares, strict=True))
    return np.asarray(result, dtype=np.float32).reshape(gray.shape)


@lru_cache(maxsize=16)
def _sampling(size: int, degrees: float, zoom: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each pixel of the result the four pixels that it is mixed from, and their shares, both (4, S * S)."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    middle = (2 * np.arange(size) + 1) / size - 1  # pixel centres from -1 to 1
    y, x = np.meshgrid(middle, middle, indexing="ij")
    columns, rows = (
        np.clip(((place + 1) * size - 1) / 2, 0, size - 1) for place in (cos * x - sin * y, sin * x + cos * y)
    )
    left, top = np.floor(columns).astype(np.int64), np.floor(rows).astype(np.int64)
    right, bottom = np.minimum(left + 1, size - 1), np.minimum(top + 1, size - 1)
    across, down = columns - left, rows - top
    corners = [row * size + column for row in (top, bottom) for column in (left, right)]
    shares = [row * column for row in (1 - down, down) for column in (1 - across, across)]
    return np.stack(corners).reshape(4, -1), np.stack(shares).reshape(4, -1).astype(np.float32)
