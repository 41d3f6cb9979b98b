"""Some of the films of an array, in an order, read only when they are asked for."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class FilmStack:
    """The films in `rows` of an array uint8 (N, S, S), which may be memory-mapped. It has the shape of an array and is
    indexed like one; what is asked for is copied, the rest is never read."""

    def __init__(self, images: np.ndarray, rows: ArrayLike) -> None:
        self.images = images
        self.rows = np.asarray(rows)
        self.shape = (len(self.rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> np.ndarray:
        films: np.ndarray = self.images[self.rows[which]]
        return films


Films = np.ndarray | FilmStack
