"""Films as equipment and software deliver them that nothing here learns from: no augmentation makes such changes.

A change takes a preprocessed film, uint8 (S, S), and its dice; strengths are those of 224 px, and lengths grow with the
film. The diagnosis stays. Recipes are chosen by this first set. docs/equipment.py has a second, for one look once
all is chosen.
"""

import io
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image

from pulmo.evaluation.probes.image_changes import to_gray

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # a film and its dice -> gray values (S, S)


def deliver_films(images: np.ndarray, change: Change, seed: int) -> np.ndarray:
    """Films (N, S, S) after the change, uint8; each has dice of its own."""
    dice = np.random.default_rng(seed).spawn(len(images))
    return np.stack([to_gray(change(film, own)) for film, own in zip(images, dice, strict=True)])


def _edges(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    fine, coarse = (film - blur(film, sigma) for sigma in (2, 8))
    return np.asarray(film + 0.8 * fine + 0.6 * coarse)


def _s_shaped(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    curve = 1 / (1 + np.exp(-8 * (film / 255 - 0.5)))
    return np.asarray(255 * (curve - 0.018) / (1 - 2 * 0.018))  # its ends


def _grid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return np.asarray(film * (1 + 0.04 * stripes(film, 3.3, dice)[:, None]))


def _collimated(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    margins = (dice.uniform(0.02, 0.12, 4) * len(film)).astype(int)
    field = np.zeros(film.shape)
    field[margins[0] : len(film) - margins[1], margins[2] : len(film) - margins[3]] = 1
    return np.asarray(film * blur(field, 0.8))


def _lanczos(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    side = round(0.6 * len(film))
    small = Image.fromarray(film).resize((side, side), Image.Resampling.LANCZOS)
    return np.array(small.resize(film.shape, Image.Resampling.LANCZOS))


def _flat_jpeg(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return jpeg(film, np.full(64, 28))


def _scanned(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A film on paper of its own curve, read by a scanner whose sensors differ, with dust."""
    developed = 255 * (film / 255) ** 1.3
    streaks = 2 * dice.standard_normal(len(film))
    read = blur(developed, 0.8) + streaks + 3 * dice.standard_normal(film.shape)
    for y, x in dice.integers(0, len(film), (12, 2)):
        read[y : y + 2, x : x + 2] = 235
    return read


FIRST: Mapping[str, Change] = {
    "edges raised at two scales": _edges,
    "S-shaped gray table": _s_shaped,
    "grid lines": _grid,
    "collimated": _collimated,
    "shrunk and enlarged by Lanczos": _lanczos,
    "JPEG of a flat table": _flat_jpeg,
    "scanned from paper": _scanned,
}


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Values (S, S) under a Gaussian of so many pixels at 224 px."""
    scaled = sigma * len(values) / 224
    return cv2.GaussianBlur(values.astype(np.float64), (0, 0), scaled, borderType=cv2.BORDER_REFLECT)


def stripes(film: np.ndarray, period: float, dice: np.random.Generator) -> np.ndarray:
    """A wave (S,) from -1 to 1 of a period in pixels, whose phase is drawn. It does not grow with the film: the grid
    was finer than the pixels, and this is what sampling left of it."""
    return np.asarray(np.sin(2 * np.pi * (np.arange(len(film)) / period + dice.random())))


def jpeg(film: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A film as a JPEG with this table of quantisation (64,) returns it."""
    stored = io.BytesIO()
    Image.fromarray(film).save(stored, "JPEG", qtables=[table.astype(int).tolist()])
    return np.array(Image.open(stored))
