"""The branching vessels and airways of the phantom's lungs."""

import numpy as np

from pulmo.sources.phantom.anatomy import SCALE, Frame
from pulmo.sources.phantom.drawing import Array, Dice, soften

ROOTS = 22  # in both lungs together
PACE = 1.05  # pixels that a branch grows between two dots of ink


def grow(frame: Frame, seed: int) -> tuple[Array, Array]:
    """The tree of `seed`, drawn about 1 strong in its larger branches, and those large ones alone, 0 to 1.

    Branches start around both hila, wander, fork and thin out; the same tree stretches with the lungs it grows in.
    """
    dice = Dice(seed)
    side = np.where(np.arange(ROOTS) % 2 == 0, np.float32(-1), np.float32(1))
    x, y = side * dice.many(0.2, 0.28, ROOTS), frame.height * dice.many(0.46, 0.66, ROOTS)
    # from straight up through sideways to straight down, by the half-angle form of sine and cosine
    half = (np.arange(ROOTS).astype(np.float32) - (ROOTS - 1) / 2) / (ROOTS / 2)
    across, down = side * (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    thick = dice.many(0.5, 1, ROOTS) * (1 + 0.5 * (down > 0).astype(np.float32))
    trail = []
    for step in range(40):
        turn = dice.many(-0.3, 0.3, len(x))
        across, down = across - turn * down, down + turn * across
        norm = np.sqrt(across * across + down * down)
        across, down = across / norm, down / norm
        for _ in range(2):
            x, y = x + across * (PACE / SCALE), y + down * (PACE / SCALE)
            trail.append((x, y, thick))
        if step % 7 == 4:
            bend = dice.many(0.3, 0.6, len(x))
            heavy, light = thick * 0.8, thick * 0.65
            one, two = (across - bend * down, down + bend * across), (across + bend * down, down - bend * across)
            keep = np.concatenate((heavy, light)) > 0.12
            forks = ((x, x), (y, y), (one[0], two[0]), (one[1], two[1]), (heavy, light))
            x, y, across, down, thick = (np.concatenate(fork)[keep] for fork in forks)
    coarse, middle, fine = _ink(frame, *(np.concatenate(part) for part in zip(*trail, strict=True)))
    coarse = soften(coarse, 3)
    every = soften(soften(coarse + middle, 1) + fine, 1)
    return every / (1 + 0.4 * every), np.minimum(coarse, 1)


def _ink(frame: Frame, x: Array, y: Array, thick: Array) -> Array:
    """Dots of ink on three sheets: of thick, middling and thin branches. Counted in integers, in whatever order."""
    rows, columns = frame.shape
    column = np.floor(x * SCALE).astype(np.int64) - frame.left
    row = np.floor(y * SCALE).astype(np.int64) - frame.top
    sheet = (thick < 0.75).astype(np.int64) + (thick < 0.4)
    seen = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    cell = ((sheet * rows + row) * columns + column)[seen]
    ink = np.bincount(cell, (thick[seen] * 256).astype(np.int64), 3 * rows * columns)
    return ink.astype(np.float32).reshape(3, rows, columns) / 110
