"""The embedded dataset: chest films drawn by lot, with the file names, folders and class balance of Kermany's set.

Nothing about view, exposure, marker or file format depends on the class, so that only the lungs tell it. How clearly
they do ranges, patient by patient, from hardly at all to plainly.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pulmo.base.process import usable_cores
from pulmo.films.rows.table import Listed
from pulmo.sources.phantom.anatomy import Chest, Frame, Pose, attenuation
from pulmo.sources.phantom.drawing import Dice
from pulmo.sources.phantom.exposure import View, expose
from pulmo.sources.phantom.illness import consolidate, inflame
from pulmo.sources.phantom.vessels import grow

TEST_SHARE, VAL_FILMS = 0.28, 16
NORMAL_SHARE = {"train": 0.26, "val": 0.5, "test": 0.375}
BACTERIAL_SHARE = 0.66  # of the pneumonias


@dataclass(frozen=True)
class Patient:
    """A child and the films that were taken of it, as paths under data/raw."""

    seed: tuple[int, ...]
    subtype: str
    films: tuple[str, ...]


def fetch(raw: Path, films: int, seed: int, workers: int = 0) -> tuple[list[Listed], dict[str, str]]:
    """Draw `films` films into raw/{train,val,test}/{NORMAL,PNEUMONIA}/ in `workers` threads (0 = one per core).

    The films, sorted by path, and where they come from. The same `films` and `seed` give the same bytes on every
    machine, however many threads draw.
    """
    patients = plan(films, seed)
    drawn = sorted(path for patient in patients for path in patient.films)
    for folder in {(raw / path).parent for path in drawn}:
        folder.mkdir(parents=True, exist_ok=True)
    # Threads, not processes: most of the work leaves the interpreter's lock, and nothing outlives a killed stage.
    with (
        ThreadPoolExecutor(workers or min(usable_cores(), 8)) as pool,
        tqdm(total=films, desc="draw", unit="film", disable=None) as bar,
    ):
        for count in pool.map(lambda patient: draw_patient(raw, patient), patients):
            bar.update(count)
    listed = [Listed(path, path.split("/")[1], path.split("/")[0]) for path in drawn]
    return listed, {"source": "phantom", "films": str(films), "seed": str(seed)}


def plan(films: int, seed: int) -> list[Patient]:
    """The patients with their films: one to four films each, no patient in two splits, numbered as in Kermany's set."""
    dice = Dice(seed)
    test = round(TEST_SHARE * films)
    patients: list[Patient] = []
    numbers = dict.fromkeys(("bacteria", "virus", "IM", "NORMAL2-IM", "film"), 0)
    for split, size in (("train", films - test - VAL_FILMS), ("val", VAL_FILMS), ("test", test)):
        normal = round(NORMAL_SHARE[split] * size)
        bacterial = round(BACTERIAL_SHARE * (size - normal))
        for subtype, left in (("normal", normal), ("bacterial", bacterial), ("viral", size - normal - bacterial)):
            while left:
                count = min((1, 1, 1, 1, 1, 2, 2, 2, 3, 4)[dice.below(10)], left)
                names = _name(subtype, count, numbers, dice)
                folder = f"{split}/{'NORMAL' if subtype == 'normal' else 'PNEUMONIA'}"
                paths = tuple(f"{folder}/{name}.jpeg" for name in names)
                patients.append(Patient((seed, len(patients) + 1), subtype, paths))
                left -= count
    return patients


def _name(subtype: str, count: int, numbers: dict[str, int], dice: Dice) -> list[str]:
    if subtype == "normal":
        series = "IM" if dice.chance(0.4) else "NORMAL2-IM"
        numbers[series] += 1
        first = f"{series}-{numbers[series]:04d}"
        if dice.chance(0.5):
            return [f"{first}-{film:04d}" for film in range(1, count + 1)]
        return [f"{first}-0001" + (f"-{film:04d}" if film else "") for film in range(count)]
    kind = "bacteria" if subtype == "bacterial" else "virus"
    numbers[kind] += 1
    numbers["film"] += count
    return [f"person{numbers[kind]}_{kind}_{numbers['film'] - count + film}" for film in range(1, count + 1)]


def draw_patient(raw: Path, patient: Patient) -> int:
    """Draw and write the films of one patient; returns how many."""
    dice = Dice(*patient.seed)
    chest, severity = Chest.draw(dice), dice.between(0, 1)
    for number, path in enumerate(patient.films, 1):
        (raw / path).write_bytes(draw_film(chest, patient.subtype, severity, Dice(*patient.seed, number)))
    return len(patient.films)


def draw_film(chest: Chest, subtype: str, severity: float, dice: Dice) -> bytes:
    """One JPEG film of a chest that is normal, or bacterial or viral at a severity from 0 (hardly visible) to 1.

    The illness has dice of its own: with the same `dice`, films of different subtypes differ in the lungs alone.
    """
    pose = Pose.draw(dice)
    view = View.draw(chest.height * pose.breath, dice)
    left, top, columns, rows = view.canvas()
    frame = Frame(chest, pose, left, top, columns, rows)
    branches, bronchi = grow(frame, chest.seed)
    filled, streaks = np.zeros((1, 1), np.float32), 0.25 * chest.vessels * branches
    if subtype == "bacterial":
        filled = consolidate(frame, bronchi, severity, Dice(chest.seed, 1))
    elif subtype == "viral":
        filled, added = inflame(frame, grow(frame, chest.seed + 1)[0], severity, Dice(chest.seed, 1))
        streaks = streaks + added
    rays = attenuation(chest, pose, frame, filled, streaks, dice)
    return expose(view.cut(rays, left, top), dice)
