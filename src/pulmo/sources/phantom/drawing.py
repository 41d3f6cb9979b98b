"""Pen and dice of the phantom films: drawing and chance whose every bit is the same on every machine.

Only +, -, *, / and square roots of float32, and integers: IEEE 754 fixes those to the last bit. exp, sin, powers,
matrix products, floating-point sums and interpolation routines are left out, because their last bits depend on the
processor and the compiler.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # always of float32; NumPy's own types take float32 + 1.0 for float64


class Dice:
    """Chance from a seed; numbers of the same seed in the same order are the same everywhere."""

    def __init__(self, *seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(self.generator.random())

    def bell(self, middle: float, reach: float) -> float:
        """Bell-shaped around `middle`, never farther from it than `reach`: the mean of three uniforms."""
        return middle + reach * (self.between(-1, 1) + self.between(-1, 1) + self.between(-1, 1)) / 3

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return float(self.generator.random()) < probability

    def below(self, end: int) -> int:
        """Uniform integer in [0, end)."""
        return int(self.generator.integers(end))

    def many(self, low: float, high: float, count: int) -> Array:
        """`count` uniform draws from [low, high)."""
        return (low + (high - low) * self.generator.random(count)).astype(np.float32)

    def cloud(self, shape: tuple[int, int], cell: int) -> Array:
        """Smooth random field in [0, 1): random values on a grid of `cell` pixels with soft passages between them."""
        rows, columns = shape
        nodes = self.generator.integers(0, 256, (rows // cell + 2, columns // cell + 2)).astype(np.float32) / 256
        return _stretch(_stretch(nodes, rows, cell).T, columns, cell).T


def _stretch(nodes: Array, count: int, cell: int) -> Array:
    place = np.arange(count)
    share = ramp((place % cell).astype(np.float32) / cell)[:, None]
    first = place // cell
    field: Array = nodes[first] * (1 - share) + nodes[first + 1] * share
    return field


def ramp(x: Array) -> Array:
    """Smooth passage from 0 (x <= 0) to 1 (x >= 1)."""
    x = np.clip(x, 0, 1)
    passage: Array = x * x * (3 - 2 * x)
    return passage


def bump(x: Array) -> Array:
    """Bell of height 1 at x = 0, about a quarter at x = 1."""
    x = 1 + x * x
    return 1 / (x * x)


def dome(x: Array) -> Array:
    """Half circle: 1 at x = 0, 0 at |x| >= 1; how thick a cylinder of radius 1 is at distance x from its axis."""
    thickness: Array = np.sqrt(np.maximum(1 - x * x, 0))
    return thickness


def bone(distance: Array, radius: float | Array, marrow: float = 0.72) -> Array:
    """Thickness of a tubular bone at `distance` from its axis, about 1 in the wall and less over the marrow."""
    x = distance / radius
    return dome(x) - 0.75 * marrow * dome(x / marrow)


def curve(at: Array, *knots: tuple[float, float]) -> Array:
    """Smooth curve (cubic Hermite) through `knots` of increasing position, evaluated at `at`; constant outside."""
    place = np.array([knot[0] for knot in knots], np.float32)
    value = np.array([knot[1] for knot in knots], np.float32)
    slope = np.zeros_like(value)
    slope[1:-1] = (value[2:] - value[:-2]) / (place[2:] - place[:-2])
    left = np.clip(np.searchsorted(place, at, side="right") - 1, 0, len(knots) - 2)
    width = place[left + 1] - place[left]
    t = np.clip((at - place[left]) / width, 0, 1)
    rise = ramp(t)
    start, end = slope[left] * width, slope[left + 1] * width
    bend = t * (1 - t) * (start * (1 - t) - end * t)
    smooth: Array = value[left] * (1 - rise) + value[left + 1] * rise + bend
    return smooth


def soften(picture: Array, times: int) -> Array:
    """Blur by the weights 1, 2, 1 along both axes, `times` over; nothing comes in from outside."""
    for _ in range(times):
        rows = 2 * picture
        rows[1:] += picture[:-1]
        rows[:-1] += picture[1:]
        picture = 2 * rows
        picture[:, 1:] += rows[:, :-1]
        picture[:, :-1] += rows[:, 1:]
    soft: Array = picture / 16**times
    return soft


def segment(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float]) -> tuple[Array, Array]:
    """Distance of every point from the segment, and how far along it (0 to 1) its nearest point lies."""
    run, fall = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * run + (y - start[1]) * fall) / (run * run + fall * fall), 0, 1)
    across, down = x - start[0] - along * run, y - start[1] - along * fall
    return np.sqrt(across * across + down * down), along
