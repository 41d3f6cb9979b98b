"""The film table: what each film is, whose it is, and how it is told from every other."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.files import unquote
from pulmo.films.rows.labels import LABELS, SPLITS, SUBTYPES

# Who can tell a patient. A study may be one of several of its patient; of the last, the film is its own patient.
KNOWN_PATIENT = ("csv", "name", "published", "dicom")
UNKNOWN_PATIENT = ("study", "")
PATIENT_FROM = KNOWN_PATIENT + UNKNOWN_PATIENT
CSV_PREFIX = "csv."  # of columns of data/films.csv that a CSV had besides
SPLIT_COLUMNS = ("path", "split", "label", "subtype", "patient")  # of data/splits.csv


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
    others: Mapping[str, str] = field(default_factory=dict, compare=False)  # columns of a CSV that mean nothing here


def to_table(films: Iterable[Film], listed: Iterable[Listed] = ()) -> pd.DataFrame:
    """The film table, sorted by path, with the other columns of `listed`; a path given twice, an unknown label or an
    empty table is a UserError."""
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
    table = table.sort_values("path", ignore_index=True)
    others = {film.path: film.others for film in listed if film.others}
    names = dict.fromkeys(name for values in others.values() for name in values)
    return table.assign(
        **{CSV_PREFIX + name: [others.get(path, {}).get(name, "") for path in table.path] for name in names}
    )


def read_films(path: Path) -> pd.DataFrame:
    """Read data/films.csv with exact types: text stays text, empty stays empty. Other columns of a CSV are text.

    A missing or damaged file, and a value that no film can have, is a UserError that names file and line.
    """
    cure = "run `dvc repro download`"
    table = read_columns(path, Film.__annotations__, cure, CSV_PREFIX)
    _check_films(path, table, cure)
    check_values(path, table, "source_split", table.source_split.isin(("", *SPLITS)), cure)
    check_values(path, table, "patient_from", table.patient_from.isin(PATIENT_FROM), cure)
    for column in ("width", "height", "bytes"):
        check_values(path, table, column, table[column] >= 0, cure)
    return table


def read_splits(path: Path) -> pd.DataFrame:
    """Read data/splits.csv, all of it text; any other file is a UserError that names it and the line."""
    cure = "run `dvc repro split`"
    table = read_columns(path, dict.fromkeys(SPLIT_COLUMNS, str), cure)
    _check_films(path, table, cure)
    check_values(path, table, "split", table.split.isin(SPLITS), cure)
    return table


def read_columns(path: Path, columns: Mapping[str, type], cure: str, others: str = "") -> pd.DataFrame:
    """A CSV with exactly these columns and types, or a UserError. Behind them, columns of text may follow whose names
    begin with `others`, where that is not empty."""
    try:
        names = [str(name) for name in pd.read_csv(path, nrows=0).columns]
        text = {name: str for name in names if columns.get(name, str) is str}
        table = unquote(pd.read_csv(path, dtype=text, keep_default_na=False))
    except (FileNotFoundError, ValueError):
        names, table = [], pd.DataFrame()
    more = names[len(columns) :]
    numbers = [name for name, kind in columns.items() if kind is not str]
    if (
        names[: len(columns)] != list(columns)
        or not all(others and name.startswith(others) for name in more)
        or not all(pd.api.types.is_integer_dtype(table[name]) for name in numbers)
    ):
        raise UserError(f"{path} is missing, damaged or of another version", cure)
    return table


def check_values(path: Path, table: pd.DataFrame, column: str, good: "pd.Series[bool]", cure: str) -> None:
    """UserError that names the first line of the file whose value is not good."""
    if not good.all():
        place = int((~good).to_numpy().argmax())
        raise UserError(f"{path}, line {place + 2}: {column} {table[column].iloc[place]!s:.200} cannot be", cure)


def _check_films(path: Path, table: pd.DataFrame, cure: str) -> None:
    inside = ~table.path.str.match(r"/|[A-Za-z]:|$") & ~table.path.str.split("/").map(lambda parts: ".." in parts)
    check_values(path, table, "path", inside & ~table.path.duplicated(), cure)
    check_values(path, table, "label", table.label.isin(LABELS), cure)
    check_values(path, table, "subtype", table.subtype.isin(SUBTYPES), cure)
    check_values(path, table, "patient", table.patient != "", cure)
