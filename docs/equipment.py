"""How models bear validation films as other equipment delivers them, beside the mean over the renderings.

Run from the project's root, after the experiments: `python docs/equipment.py [--second] EXPERIMENT ...`. About two
minutes each; it scores validation alone. With --second, a second set of changes, none of which is in the first: it is
for one look once all is chosen.
"""

import sys
from collections.abc import Mapping

import cv2
import numpy as np
import pandas as pd
from ranking import opened, read_aurocs

from pulmo.evaluation.probes.equipment import score_equipment
from pulmo.evaluation.probes.equipment_films import FIRST, Change, blur, jpeg, stripes
from pulmo.evaluation.probes.renderings import score_renderings


def _pyramid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Details of four sizes, faint ones raised above strong ones, as multi-scale processing does."""
    rest, details = film.astype(np.float64), []
    for sigma in (1, 2, 4, 8):
        smooth = blur(rest, sigma)
        details.append(rest - smooth)
        rest = smooth
    return np.asarray(rest + sum(np.sign(detail) * 10 * (np.abs(detail) / 10) ** 0.6 for detail in details))


def _logarithmic(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return np.asarray(255 * np.log1p(6 * (film / 255)) / np.log(7))


def _crossed_grid(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    rows, columns = stripes(film, 4.1, dice)[:, None], stripes(film, 2.6, dice)
    return np.asarray(film * (1 + 0.04 * rows) * (1 + 0.04 * columns))


def _aslant(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Collimated to a turned field whose corners are cut."""
    size, turn = len(film), np.radians(dice.uniform(-8, 8))
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    across, along = np.abs(np.cos(turn) * x - np.sin(turn) * y), np.abs(np.sin(turn) * x + np.cos(turn) * y)
    wide, high = dice.uniform(0.85, 0.95, 2)
    field = (across < wide) & (along < high) & (across + along < 0.9 * (wide + high))
    return np.asarray(film * blur(field.astype(np.float64), 0.5))


def _nearest(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    side = round(0.7 * len(film))
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, film.shape, interpolation=cv2.INTER_LINEAR)


def _steep_jpeg(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[:8, :8]
    return jpeg(film, np.minimum(255, 6 + 2 * (row + column) ** 2).ravel())


def _photographed(film: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A film on a light box, taken from nearly the front by a telephone."""
    size = len(film)
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=np.float32)
    seen = corners + (dice.uniform(-0.03, 0.03, (4, 2)) * size).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, seen)
    taken = cv2.warpPerspective(film, matrix, film.shape, borderMode=cv2.BORDER_REPLICATE).astype(np.float64)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - dice.uniform(0.3, 0.7, 2)[:, None, None]
    light = 1.1 - 0.7 * (x**2 + y**2)
    return np.asarray(20 + 0.85 * blur(taken, 0.7) * light + 2.5 * dice.standard_normal(film.shape))


SECOND: Mapping[str, Change] = {
    "faint details raised": _pyramid,
    "logarithmic gray table": _logarithmic,
    "crossed grid lines": _crossed_grid,
    "collimated aslant": _aslant,
    "shrunk by nearest neighbours": _nearest,
    "JPEG of a steep table": _steep_jpeg,
    "photographed": _photographed,
}


def main(names: list[str], second: bool) -> None:
    """Print a column for each experiment: the AUROC of each change and of their mean, and that of the renderings."""
    columns = {}
    for name in names:
        with opened(name) as (package, images, val):
            changes = SECOND if second else FIRST
            aurocs = read_aurocs(score_equipment(package, val, images, changes, len(val), 42))
            renderings = read_aurocs(score_renderings(package, val, images, 64, len(val), 42))
            columns[name] = aurocs | {"mean of the renderings": renderings["mean"]}
    print(pd.DataFrame(columns).to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "--second"]
    if not chosen:
        sys.exit("name experiments: python docs/equipment.py [--second] EXPERIMENT ...")
    main(chosen, "--second" in sys.argv)
