"""How many films of other collections a model finds unlike those that it learnt from, by the share of validation films
that its limit lets pass, and how many of the rest it calls wrongly.

Run from the project's root after the pipeline: `python docs/adults.py LABEL=FOLDER ...`, where LABEL is what all films
of the folder show: NORMAL, PNEUMONIA, or `mixed` where they differ, so that nothing is counted as wrong.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pulmo import Predictor
from pulmo.base import paths
from pulmo.base.errors import UserError
from pulmo.evaluation.novelty import measure_films
from pulmo.films.rows.processed import open_images, read_rows
from pulmo.package.familiarity import Familiarity
from pulmo.package.inference import Network
from pulmo.package.storage import ONNX

PASSING = (0.99, 0.98, 0.975, 0.97, 0.96, 0.95)
LABELS = ("NORMAL", "PNEUMONIA", "mixed")


def main(collections: list[tuple[str, Path]]) -> None:
    """Print a Markdown row without a limit and for each share of validation that passes."""
    predictor = Predictor.load(paths.PACKAGE)
    if predictor.familiarity is None:
        raise SystemExit("the model's network has no feature maps, so that it measures no distance")
    val, test = (measure_split(predictor.familiarity, split) for split in ("val", "test"))
    tables = {}
    for label, folder in collections:
        tables[str(folder)] = ask(predictor, folder, label)
        print(f"{folder}: {len(tables[str(folder)])} films, {label}")
    print(f"| validation that passes | test refused | {' | '.join(tables)} |")
    print("|---" * (2 + len(tables)) + "|")
    limits = {"no limit": np.inf} | {f"{share:g}": np.quantile(val, share, method="higher") for share in PASSING}
    for title, limit in limits.items():
        cells = [describe(table, limit) for table in tables.values()]
        print(f"| {title} | {np.mean(test > limit):.3f} | {' | '.join(cells)} |")


def measure_split(familiarity: Familiarity, split: str) -> np.ndarray:
    """Distances of a split's films."""
    network = Network((paths.PACKAGE / ONNX).read_bytes())
    rows = read_rows(paths.SPLITS, paths.INDEX, split).row
    return measure_films(familiarity, network, open_images(paths.IMAGES), rows)


def ask(predictor: Predictor, folder: Path, label: str) -> pd.DataFrame:
    """Distance of each film of a folder, whether it is answered if that passes, and wrongly so."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            film = predictor.read(path)
        except UserError as error:
            print(f"left out: {error.message}")
            continue
        (score,) = predictor.score([film])
        answer = predictor.decide(film, score._replace(unlike=False))
        answered = answer.label is not None and not answer.unsure
        rows.append((score.distance, answered, answered and label != "mixed" and answer.label != label))
    return pd.DataFrame(rows, columns=["distance", "answered", "wrong"])


def describe(table: pd.DataFrame, limit: float) -> str:
    """The share that is refused, the number answered outside the band, and how many of these wrongly."""
    near = table[table.distance <= limit]
    return f"{1 - len(near) / len(table):.3f}; {near.answered.sum()}, {near.wrong.sum()} wrong"


def read_collection(named: str) -> tuple[str, Path]:
    """The label and the folder of LABEL=FOLDER."""
    label, _, folder = named.partition("=")
    if label not in LABELS or not any(Path(folder).glob("*")):
        raise argparse.ArgumentTypeError(f"{named} is not LABEL=FOLDER: one of {', '.join(LABELS)}, and films")
    return label, Path(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=read_collection, metavar="LABEL=FOLDER")
    main(parser.parse_args().collections)
