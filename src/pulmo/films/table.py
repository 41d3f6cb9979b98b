"""The film table: what each film is, whose it is, and how it is told from every other."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pulmo.base.errors import UserError
from pulmo.films.labels import LABELS

# Who can tell a patient. A study may be one of several of its patient; of the last, the film is its own patient.
PATIENT_FROM = ("csv", "name", "published", "dicom", "study", "")
UNKNOWN_PATIENT = ("study", "")


@dataclass(frozen=True)
class Film:
    """One row of data/films.csv."""

    path: str  # relative to data/raw, with forward slashes
    label: str  # NORMAL or PNEUMONIA
    subtype: str  # normal, bacterial, viral, or unknown
    patient: str  # films with the same key belong to one child
    patient_from: str  # one of PATIENT_FROM: who tells the key
    source_split: str  # train, val, test, or empty where the source has no splits
    width: int  # pixels as stored; 0 where the file cannot be decoded
    height: int
    mode: str  # pixel format as stored: L, RGB, I;16, DICOM photometric interpretation, ...
    bytes: int
    sha256: str  # of the file
    pixel_sha256: str  # of the decoded gray pixels; empty where the file cannot be decoded


@dataclass(frozen=True)
class Listed:
    """One film as its source lists it; what the source does not tell stays empty."""

    path: str  # relative to the raw folder, with forward slashes
    label: str  # NORMAL or PNEUMONIA
    source_split: str = ""
    patient: str = ""  # as the CSV writes it; empty: header or file name may tell
    subtype: str = ""  # empty: label and file name tell


def to_table(films: Iterable[Film]) -> pd.DataFrame:
    """The film table, sorted by path; a path given twice, an unknown label or an empty table is a UserError."""
    table = pd.DataFrame([asdict(film) for film in films])
    if table.empty:
        raise UserError("the source holds no image", "check data.source and its settings in params.yaml")
    if not set(table.label) <= set(LABELS):
        wrong = sorted(set(table.label) - set(LABELS))
        raise UserError(
            f"label {wrong[0]!r} is neither {LABELS[0]} nor {LABELS[1]}", "correct the labels of the source"
        )
    if table.path.duplicated().any():
        raise UserError(f"{table.path[table.path.duplicated()].iloc[0]} is listed twice", "remove one of the two")
    return table.sort_values("path", ignore_index=True)


def read_films(path: Path) -> pd.DataFrame:
    """Read data/films.csv with exact types: text stays text, empty stays empty. Any other file is a UserError."""
    text = {name: str for name, kind in Film.__annotations__.items() if kind is str}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (FileNotFoundError, ValueError):
        table = pd.DataFrame()
    if list(table.columns) != list(Film.__annotations__):
        raise UserError(f"{path} is missing, damaged or of another version", "run `dvc repro download`")
    return table
