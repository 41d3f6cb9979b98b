"""The acquisition of the train films, learnt from them, and all films of the array brought to it."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from pulmo.base.errors import UserError
from pulmo.base.files import whole_file, write_json
from pulmo.films.rows.processed import read_index
from pulmo.package.harmony import Harmony, measure_levels, measure_spectrum

ENOUGH = 2_000  # train films that an acquisition is learnt from, drawn by lot where there are more
_BLOCK = 64  # films in memory at a time


def harmonise_films(images: Path, index: Path, train: Collection[str], mode: str, out: Path) -> None:
    """Bring the films of images.npy, listed in index.csv, to the acquisition of those whose paths are in `train`, and
    then write that acquisition to `out`. `mode`: none, gray, spectrum or both.

    The array is replaced whole, by ordinary writes: on a full disk those of a memory map would kill the process.
    """
    rows, films = read_index(index), np.load(images, mmap_mode="r")
    harmony = learn_harmony(films, rows.row[rows.path.isin(train)].to_numpy(), mode)
    if mode != "none":
        with images.open("rb") as before, whole_file(images) as temporary, temporary.open("wb") as file:
            file.write(before.read(films.offset))
            for start in range(0, len(films), _BLOCK):
                file.write(harmony.apply(np.array(films[start : start + _BLOCK])).data)
    write_json(out, harmony.model_dump())


def learn_harmony(images: np.ndarray, train: ArrayLike, mode: str) -> Harmony:
    """The mean gray levels and log spectrum of the films in the rows `train` of images uint8 (N, S, S); the spectrum
    where the films have these levels already. UserError where there is no row."""
    rows = np.asarray(train)
    if mode != "none" and not len(rows):
        raise UserError(
            "no train film decodes, so there is none to learn preprocess.harmonise from", "see rejected.csv"
        )
    if len(rows) > ENOUGH:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:ENOUGH])
    harmony = Harmony()
    if mode in ("gray", "both"):
        harmony = Harmony(gray=_average(images, rows, measure_levels))
    if mode in ("spectrum", "both"):
        levelled = harmony
        spectrum = _average(images, rows, lambda film: measure_spectrum(levelled.level(film)))
        harmony = Harmony(gray=harmony.gray, spectrum=spectrum)
    return harmony


def _average(images: np.ndarray, rows: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> tuple[float, ...]:
    total = sum(measure(images[row]) for row in rows)
    return tuple(np.round(total / len(rows), 4).tolist())
