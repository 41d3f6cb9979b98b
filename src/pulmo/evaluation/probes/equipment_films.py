"""Films as equipment and software deliver them that nothing here learns from: no augmentation makes such changes.

Two sets with no change in common: recipes are chosen by the first. The second is for one look once all is chosen
(docs/equipment.py), and no stage makes it. A change takes a preprocessed film, uint8 (S, S), and its dice; strengths
are those of 224 px, and lengths grow with the film. The diagnosis stays.
"""

import io
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # a film and its dice -> gray values (S, S)


def deliver_films(images: np.ndarray, change: Change, seed: int) -> np.ndarray:
    """Films (N, S, S) after the change, uint8; each has dice of its own."""
    dice = np.random.default_rng(seed).spawn(len(images))
    return np.stack([_to_gray(change(film, own)) for film, own in zip(images, dice, strict=True)])


def _edges(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    fine, coarse = (film - _blur(film, sigma) for sigma in (2, 8))
    return np.asarray(film + 0.8 * fine + 0.6 * coarse)


def _s_shaped(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    curve = 1 / (1 + np.exp(-8 * (film / 255 - 0.5)))
    return np.asarray(255 * (curve - 0.018) / (1 - 2 * 0.018))  # its ends


def _grid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return np.asarray(film * (1 + 0.04 * _stripes(film, 3.3, dice)[:, None]))


def _collimated(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    margins = (dice.uniform(0.02, 0.12, 4) * len(film)).astype(int)
    field = np.zeros(film.shape)
    field[margins[0] : len(film) - margins[1], margins[2] : len(film) - margins[3]] = 1
    return np.asarray(film * _blur(field, 0.8))


def _lanczos(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    side = round(0.6 * len(film))
    small = Image.fromarray(film).resize((side, side), Image.Resampling.LANCZOS)
    return np.array(small.resize(film.shape, Image.Resampling.LANCZOS))


def _flat_jpeg(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return _jpeg(film, np.full(64, 28))


def _scanned(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A film on paper of its own curve, read by a scanner whose sensors differ, with dust."""
    developed = 255 * (film / 255) ** 1.3
    streaks = 2 * dice.standard_normal(len(film))
    read = _blur(developed, 0.8) + streaks + 3 * dice.standard_normal(film.shape)
    for y, x in dice.integers(0, len(film), (12, 2)):
        read[y : y + 2, x : x + 2] = 235
    return read


def _pyramid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Details of four sizes, faint ones raised above strong ones, as multi-scale processing does."""
    rest, details = film.astype(np.float64), []
    for sigma in (1, 2, 4, 8):
        smooth = _blur(rest, sigma)
        details.append(rest - smooth)
        rest = smooth
    return np.asarray(rest + sum(np.sign(detail) * 10 * (np.abs(detail) / 10) ** 0.6 for detail in details))


def _logarithmic(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return np.asarray(255 * np.log1p(6 * (film / 255)) / np.log(7))


def _crossed_grid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    rows, columns = _stripes(film, 4.1, dice)[:, None], _stripes(film, 2.6, dice)
    return np.asarray(film * (1 + 0.04 * rows) * (1 + 0.04 * columns))


def _aslant(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Collimated to a turned field whose corners are cut."""
    size, turn = len(film), np.radians(dice.uniform(-8, 8))
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    across, along = np.abs(np.cos(turn) * x - np.sin(turn) * y), np.abs(np.sin(turn) * x + np.cos(turn) * y)
    wide, high = dice.uniform(0.85, 0.95, 2)
    field = (across < wide) & (along < high) & (across + along < 0.9 * (wide + high))
    return np.asarray(film * _blur(field.astype(np.float64), 0.5))


def _nearest(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    side = round(0.7 * len(film))
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, film.shape, interpolation=cv2.INTER_LINEAR)


def _steep_jpeg(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[:8, :8]
    return _jpeg(film, np.minimum(255, 6 + 2 * (row + column) ** 2).ravel())


def _photographed(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A film on a light box, taken from nearly the front by a telephone."""
    size = len(film)
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=np.float32)
    seen = corners + (dice.uniform(-0.03, 0.03, (4, 2)) * size).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, seen)
    taken = cv2.warpPerspective(film, matrix, film.shape, borderMode=cv2.BORDER_REPLICATE).astype(np.float64)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - dice.uniform(0.3, 0.7, 2)[:, None, None]
    light = 1.1 - 0.7 * (x**2 + y**2)
    return np.asarray(20 + 0.85 * _blur(taken, 0.7) * light + 2.5 * dice.standard_normal(film.shape))


FIRST: Mapping[str, Change] = {
    "edges raised at two scales": _edges,
    "S-shaped gray table": _s_shaped,
    "grid lines": _grid,
    "collimated": _collimated,
    "shrunk and enlarged by Lanczos": _lanczos,
    "JPEG of a flat table": _flat_jpeg,
    "scanned from paper": _scanned,
}
SECOND: Mapping[str, Change] = {
    "faint details raised": _pyramid,
    "logarithmic gray table": _logarithmic,
    "crossed grid lines": _crossed_grid,
    "collimated aslant": _aslant,
    "shrunk by nearest neighbours": _nearest,
    "JPEG of a steep table": _steep_jpeg,
    "photographed": _photographed,
}


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    scaled = sigma * len(values) / 224
    return cv2.GaussianBlur(values.astype(np.float64), (0, 0), scaled, borderType=cv2.BORDER_REFLECT)


def _stripes(film: np.ndarray, period: float, dice: np.random.Generator) -> np.ndarray:
    """A wave (S,) from -1 to 1 of a period in pixels, whose phase is drawn. It does not grow with the film: the grid
    was finer than the pixels, and this is what sampling left of it."""
    return np.asarray(np.sin(2 * np.pi * (np.arange(len(film)) / period + dice.random())))


def _jpeg(film: np.ndarray, table: np.ndarray) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(film).save(stored, "JPEG", qtables=[table.astype(int).tolist()])
    return np.array(Image.open(stored))


def _to_gray(values: np.ndarray) -> np.ndarray:
    gray: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return gray
