"""Which verdict a model gives on pictures that are no films of its kind, from packages that bring some.

Run from the project's root: `python docs/foreign.py [PACKAGE]`. Reads what is installed of pydicom-data,
scikit-image, scikit-learn and matplotlib. DICOM films are tried with their header and without it, pictures in colour
and in gray.
"""

import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from pulmo import Predictor
from pulmo.answering.answer import Answer
from pulmo.base import paths
from pulmo.base.errors import UserError

PICTURES = ("skimage/data", "sklearn/datasets/images", "matplotlib/mpl-data/sample_data")
DICOMS = ("data_store/data",)
TELLING = ("Modality", "BodyPartExamined", "ViewPosition")


def main() -> None:
    """Print a line a picture, and how many of each kind got which verdict."""
    predictor = Predictor.load(sys.argv[1] if len(sys.argv) > 1 else paths.PACKAGE)
    limit = predictor.familiarity.limit if predictor.familiarity else float("nan")
    verdicts: dict[str, Counter[str]] = {}
    for kind, name, content in find_pictures():
        try:
            film = predictor.read(content)
        except UserError as error:
            print(f"{name:42} {'':6} unreadable: {error.message}")
            verdicts.setdefault(kind, Counter())["unreadable"] += 1
            continue
        (score,) = predictor.score([film])
        answer = predictor.decide(film, score)
        print(f"{name:42} {(score.distance or 0) - limit:+6.1f} {answer.refusal or answer.label}")
        verdicts.setdefault(kind, Counter())[to_verdict(answer)] += 1
    for kind, counts in verdicts.items():
        print(f"{kind}: {', '.join(f'{verdict} {count}' for verdict, count in counts.most_common())}")


def to_verdict(answer: Answer) -> str:
    """One of three."""
    if answer.not_a_chest_film:
        return "no chest film"
    return "unlike" if answer.unlike_training else "answered"


def find_pictures() -> Iterator[tuple[str, str, bytes]]:
    """Kind, name and content of each."""
    for file in list_files(DICOMS, ".dcm"):
        try:
            film = pydicom.dcmread(file)
            known = [name for name in TELLING if name in film]
        except Exception:  # made to be damaged
            continue
        if "PixelData" not in film:
            continue
        yield "DICOM", file.name, file.read_bytes()
        for name in known:
            del film[name]
        stripped = io.BytesIO()
        with suppress(Exception):  # those that break the standard are not written
            film.save_as(stripped)
            yield "DICOM without header", f"{file.name} without header", stripped.getvalue()
    for file in list_files(PICTURES, ".png", ".jpg"):
        image = Image.open(file)
        if image.mode != "L":
            yield "pictures", file.name, file.read_bytes()
        gray = io.BytesIO()
        Image.fromarray(np.array(image.convert("L"))).save(gray, "PNG")
        yield "pictures in gray", f"{file.name} in gray", gray.getvalue()


def list_files(places: tuple[str, ...], *suffixes: str) -> Iterator[Path]:
    """Files of installed packages, by folders within them."""
    for place in places:
        package, _, folder = place.partition("/")
        spec = find_spec(package)
        for root in (spec and spec.submodule_search_locations) or []:
            yield from sorted(path for path in (Path(root) / folder).glob("*") if path.suffix in suffixes)


if __name__ == "__main__":
    main()
