"""The exposure of a phantom film: what view, contrast, grain, marker and file format do to one drawn chest."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulmo.sources.phantom.anatomy import SCALE
from pulmo.sources.phantom.drawing import Array, Dice, soften

LETTERS = {
    "R": "11110 10001 10001 10001 11110 10100 10010 10001 10001",
    "L": "10000 10000 10000 10000 10000 10000 10000 10000 11111",
    "A": "00100 01010 01010 10001 10001 11111 10001 10001 10001",
    "P": "11110 10001 10001 10001 11110 10000 10000 10000 10000",
    "-": "000 000 000 000 111 000 000 000 000",
}


@dataclass(frozen=True)
class View:
    """The part of the child that a film shows: a shifted, scaled and slightly tilted rectangle."""

    width: int  # pixels
    rows: int
    step: float  # units per pixel
    x: float  # middle
    y: float
    tilt: float  # tangent of half the angle

    @classmethod
    def draw(cls, height: float, dice: Dice) -> "View":
        """A view drawn by lot that takes in lungs of this height."""
        width = 300 + dice.below(401)
        aspect = dice.between(1.0, 1.5)
        extent = max(dice.bell(0.68 + height, 0.25), dice.bell(2.35, 0.2) / aspect)
        rows = round(width / aspect)
        x, y, tilt = dice.bell(0, 0.12), dice.bell(0.08 + 0.5 * height, 0.12), dice.bell(0, 0.055)
        return cls(width, rows, extent / rows, x, y, tilt)

    def canvas(self) -> tuple[int, int, int, int]:
        """Left, top, columns and rows of the smallest canvas that holds the view."""
        ends = [self._places(first, first + 1) for first in (0, self.rows - 1)]
        left, top = (min(int(end[axis].min() // 1) for end in ends) for axis in (0, 1))
        right, bottom = (max(int(end[axis].max() // 1) for end in ends) for axis in (0, 1))
        return left - 1, top - 1, right + 4 - left, bottom + 4 - top

    def _places(self, first: int, last: int) -> tuple[Array, Array]:
        square = self.tilt * self.tilt
        cosine, sine = (1 - square) / (1 + square), 2 * self.tilt / (1 + square)
        u = (np.arange(self.width).astype(np.float32) - (self.width - 1) / 2) * (self.step * SCALE)
        v = (np.arange(first, last).astype(np.float32)[:, None] - (self.rows - 1) / 2) * (self.step * SCALE)
        return u * cosine + (self.x * SCALE - 0.5 - v * sine), u * sine + (self.y * SCALE - 0.5 + v * cosine)

    def cut(self, rays: Array, left: int, top: int) -> Array:
        """The film's pixels from a canvas that begins at (`left`, `top`), by bilinear interpolation."""
        flat, columns = rays.ravel(), rays.shape[1]
        film = np.empty((self.rows, self.width), np.float32)
        for first in range(0, self.rows, 32):  # bands that fit into the processor's cache
            x, y = self._places(first, min(first + 32, self.rows))
            x, y = x - left, y - top
            column, row = x.astype(np.intp), y.astype(np.intp)
            x, y = x - column.astype(np.float32), y - row.astype(np.float32)
            corner = row * columns + column
            upper = flat[corner] * (1 - x) + flat[corner + 1] * x
            corner += columns
            film[first : first + 32] = upper * (1 - y) + (flat[corner] * (1 - x) + flat[corner + 1] * x) * y
        return film


def expose(rays: Array, dice: Dice) -> bytes:
    """A JPEG file of the attenuation of each pixel."""
    gray = _develop(rays, dice)
    for side in (gray, gray[::-1], gray.T, gray.T[::-1]):
        if dice.chance(0.1):  # collimated
            side[: 2 + dice.below(max(len(side) // 24, 1))] = dice.below(12)
    if dice.chance(0.8):
        _mark(gray, dice)
    file = io.BytesIO()
    # One gray channel (so there is no colour to subsample), a fixed quality and libjpeg's integer transform: exact too.
    Image.fromarray(gray).save(file, "JPEG", quality=60 + dice.below(36))
    return file.getvalue()


def _develop(rays: Array, dice: Dice) -> npt.NDArray[np.uint8]:
    """Gray values from attenuation: grain, window and characteristic curve."""
    grain = np.frombuffer(dice.generator.bytes(rays.size * 2), np.uint8).reshape(2, *rays.shape)
    noise = grain[0].astype(np.float32) - grain[1].astype(np.float32)
    low, high = dice.between(0, 0.15), dice.between(1.2, 1.45)
    level = (rays + noise * (dice.between(0.01, 0.08) / 256) - low) * (1023 / (high - low))
    table = np.arange(1024).astype(np.float32) / 1023
    bow = dice.bell(0.3, 0.5)
    table = table * (1 + bow) / (1 + bow * table)
    table = dice.between(0, 25) + table * dice.between(190, 230)
    gray: npt.NDArray[np.uint8] = np.clip(table, 0, 255).astype(np.uint8)[np.clip(level, 0, 1023).astype(np.intp)]
    return gray


def _mark(gray: npt.NDArray[np.uint8], dice: Dice) -> None:
    text = ("R", "R", "R", "R", "L", "A-P")[dice.below(6)]
    rows = [[int(dot) for letter in text for dot in "0" + LETTERS[letter].split()[row]] for row in range(9)]
    times = max(round(gray.shape[1] * dice.between(0.0035, 0.007)), 1)
    stamp = np.pad(np.array(rows, np.float32), 1).repeat(times, 0).repeat(times, 1)
    height, width = stamp.shape
    top, left = dice.below(gray.shape[0] // 3), dice.below(gray.shape[1] // 8)
    if text == "L":
        left = gray.shape[1] - left - width
    patch = gray[top : top + height, left : left + width]
    ink = soften(stamp, max(times - 1, 0))
    patch[:] = (patch + ink * (dice.between(215, 255) - patch)).astype(np.uint8)
