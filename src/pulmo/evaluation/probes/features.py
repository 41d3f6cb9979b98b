"""Features of a film without its anatomy: the way in which it was made, stored and framed."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pandas as pd
from scipy import fft

from pulmo.metrics.ranking import Floats

BINS = 28


def power_spectrum(images: np.ndarray) -> Floats:
    """Logarithm of the mean power in rings of spatial frequency from 0 (without it) to Nyquist, (N, at most BINS).

    Of images (N, S, S) less their mean and under a Hann window, which keeps the jump between opposite edges out of it.
    """
    size = images.shape[1]
    bins = min(BINS, size // 2)
    frequency = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size))
    ring = np.ceil(np.round(frequency * 2 * bins, 9)).astype(int).ravel()
    twice = np.tile(np.where(np.isin(np.arange(size // 2 + 1) * 2, (0, size)), 1.0, 2.0), size)  # rfft keeps one half
    rings = (ring[:, None] == np.arange(1, bins + 1)) * twice[:, None]
    rings = (rings / rings.sum(axis=0)).astype(np.float32)
    window = np.hanning(size).astype(np.float32)
    window = window[:, None] * window

    def spectra() -> Iterator[Floats]:
        for start in range(0, len(images), 64):
            block = images[start : start + 64].astype(np.float32)
            block = (block - block.mean(axis=(1, 2), keepdims=True)) * window
            power = np.abs(fft.rfft2(block)) ** 2
            yield np.log(power.reshape(len(block), -1) @ rings + 1)

    return np.concatenate(list(spectra())).astype(np.float64)


def border(images: np.ndarray) -> np.ndarray:
    """Mean and spread of gray in 32 pieces of the outer 5% of (N, S, S) images: 8 along each side, (N, 64)."""
    width = max(1, round(images.shape[1] / 20))
    turned = images.transpose(0, 2, 1)
    strips = [images[:, :width], images[:, -width:], turned[:, :width], turned[:, -width:]]
    pieces = [piece for strip in strips for piece in np.array_split(strip, 8, axis=2)]
    return np.stack([measure(axis=(1, 2)) for piece in pieces for measure in (piece.mean, piece.std)], axis=1)


def _in_blocks(measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[pd.DataFrame, np.ndarray], Floats]:
    """`measure` of the images of the table, read from the memory map a few at a time."""

    def family(table: pd.DataFrame, images: np.ndarray) -> Floats:
        rows = table["row"].to_numpy()
        return np.concatenate([measure(images[rows[start : start + 256]]) for start in range(0, len(rows), 256)])

    return family


def _gray(images: np.ndarray) -> Floats:
    return np.array([cv2.meanStdDev(image) for image in images]).reshape(-1, 2)


def _size(table: pd.DataFrame, images: np.ndarray) -> Floats:
    width, height = (np.log(table[name].to_numpy(dtype=float)) for name in ("width", "height"))
    return np.stack([width, height, width - height], axis=1)


def _file(table: pd.DataFrame, images: np.ndarray) -> Floats:
    size, width, height = (np.log(table[name].to_numpy(dtype=float)) for name in ("bytes", "width", "height"))
    return np.stack([size, size - width - height], axis=1)


def _mode(table: pd.DataFrame, images: np.ndarray) -> Floats:
    return pd.get_dummies(table["mode"]).to_numpy(dtype=float)


FAMILIES: dict[str, tuple[str, Callable[[pd.DataFrame, np.ndarray], Floats]]] = {
    "file": ("bytes, bytes per pixel", _file),
    "image size": ("width, height, aspect ratio as stored", _size),
    "mode": ("pixel format as stored", _mode),
    "gray level": ("mean and spread of gray", _in_blocks(_gray)),
    "power spectrum": (f"power in up to {BINS} rings of spatial frequency", _in_blocks(power_spectrum)),
    "border": ("mean and spread of gray in 32 pieces of the outer 5%", _in_blocks(border)),
}
