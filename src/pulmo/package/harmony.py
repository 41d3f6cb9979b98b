"""Films brought to the acquisition of the train films: their gray histogram and their radial power spectrum, in NumPy.

Equipment and software show the same chest in other gray levels and with another sharpness, which a network may take for
a sign of what it looks for. Both are brought to those of the mean train film, as Philipsen et al. (2015) do with the
energy of bands of frequency. Limits on the change keep noise from being blown up.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulmo.base.errors import UserError
from pulmo.base.files import read_json

RANKS = 65  # evenly spaced from 0 to 1, at which a histogram is told
MOST_CONTRAST = 3.0  # gray levels that one may become apart
MOST_GAIN = 1.1  # of the log amplitude in a ring, either way: three times
RING = 4  # cycles per film
_INNER = 2  # rings that stay as they are, for they hold the anatomy at large, and the window lets one into the next
_ROUNDS = 2  # of measuring what is left of the difference
_EDGE = 8  # the part of the side, at each edge, that does not count in the histogram: collimation, letters

Gray = NDArray[np.uint8]
Floats = NDArray[np.float64]


class Harmony(BaseModel):
    """The acquisition that films are brought to; part of model.json. What is empty leaves films as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gray: tuple[Annotated[float, Field(ge=0, le=255)], ...] = ()  # levels of the mean train film at RANKS ranks
    spectrum: tuple[float, ...] = ()  # logarithm of its power in each ring of spatial frequency

    def apply(self, films: Gray) -> Gray:
        """Films (N, S, S), or one (S, S), brought to this acquisition."""
        if not self.gray and not self.spectrum:
            return films
        if films.ndim == 3:
            return np.stack([self.apply(film) for film in films]) if len(films) else films
        changed = self.level(films)
        if self.spectrum:
            changed = _take_spectrum(changed, np.array(self.spectrum))
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)

    def level(self, film: Gray) -> Floats:
        """A film (S, S) in the gray levels of this acquisition, its spectrum as it is."""
        return _take_levels(film, np.array(self.gray)) if self.gray else film.astype(np.float64)


def read_harmony(file: Path) -> Harmony:
    """From what stage preprocess wrote; anything else is a UserError that names the file."""
    cure = "run `dvc repro preprocess`"
    try:
        return Harmony.model_validate(read_json(file))
    except FileNotFoundError:
        raise UserError(f"{file} not found", cure) from None
    except ValidationError as error:
        raise UserError(f"{file}: {error.errors()[0]['msg']}", cure) from None


def measure_levels(film: Gray) -> Floats:
    """Gray levels of a film (S, S) at RANKS ranks of its pixels, darkest first."""
    ranks, counts = _rank_levels(film)
    levels = np.flatnonzero(counts)
    return np.interp(np.linspace(0, 1, RANKS), ranks[levels], levels)


def measure_spectrum(film: NDArray[Any]) -> Floats:
    """Logarithm of the mean power of a film (S, S) in rings of spatial frequency, under a window that keeps its edges
    out."""
    window, ring, sizes = _rings(len(film))
    power = np.abs(np.fft.rfft2((film - film.mean()) * window)) ** 2
    return np.log(np.bincount(ring, power.ravel()) / sizes + 1)


def count_rings(size: int) -> int:
    """Rings in the spectrum of a film of so many pixels each way."""
    return len(_rings(size)[2])


def _take_levels(film: Gray, target: Floats) -> Floats:
    ranks, _ = _rank_levels(film)
    table = np.interp(ranks, np.linspace(0, 1, RANKS), target)
    table = np.concatenate([[0.0], np.cumsum(np.diff(table).clip(max=MOST_CONTRAST))])
    table += np.interp(0.5, np.linspace(0, 1, RANKS), target) - np.interp(0.5, ranks, table)
    return table[film]


def _rank_levels(film: Gray) -> tuple[Floats, NDArray[np.int64]]:
    """The share of the pixels below each gray level, half of those at it included, and how many are at it."""
    edge = len(film) // _EDGE
    counts = np.bincount(film[edge : len(film) - edge, edge : len(film) - edge].ravel(), minlength=256)
    return (np.cumsum(counts) - counts / 2) / counts.sum(), counts


def _take_spectrum(film: Floats, target: Floats) -> Floats:
    cosines, cycles = _cosines(len(film))
    waves, gain = cosines @ film @ cosines.T, np.zeros(len(target))
    middles = (np.arange(len(gain)) + 0.5) * RING
    for _ in range(_ROUNDS):
        left = (target - measure_spectrum(film)) / 2
        left[:_INNER] = 0
        gain = (gain + left).clip(-MOST_GAIN, MOST_GAIN)
        film = cosines.T @ (waves * np.exp(np.interp(cycles, middles, gain))) @ cosines
    return film


@lru_cache(maxsize=4)
def _rings(size: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """A window (S, S), the ring of each frequency of its half-spectrum, and how many frequencies are in each ring."""
    frequency = np.hypot(size * np.fft.fftfreq(size)[:, None], size * np.fft.rfftfreq(size))
    ring = (frequency / RING).astype(np.int64).ravel()
    window = np.hanning(size)
    return window[:, None] * window, ring, np.bincount(ring)


@lru_cache(maxsize=4)
def _cosines(size: int) -> tuple[Floats, Floats]:
    """The cosine transform (S, S), which unlike Fourier's does not join opposite edges, and the cycles per film of each
    of its waves."""
    place, wave = np.arange(size) + 0.5, np.arange(size)
    matrix = np.cos(np.pi / size * wave[:, None] * place) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix, np.hypot(wave[:, None], wave) / 2
