"""The film table: what each film is, whose it is, and how it is told from every other."""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from pulmo import images
from pulmo.files import sha256_file
from pulmo.stage import usable_cores

LABELS = ("NORMAL", "PNEUMONIA")
SUBTYPES = ("normal", "bacterial", "viral", "unknown")
SPLITS = ("train", "val", "test")
CLASS_NAMES = {"normal": "NORMAL", "pneumonia": "PNEUMONIA"}  # folders in small letters, and what they mean
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})

_ROBOFLOW = re.compile(r"(?<=.)(_(jpe?g|png))?\.rf\.[0-9A-Za-z]+$")
_PNEUMONIA = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(_\d+)?$")
_NORMAL = re.compile(r"^(NORMAL2-IM|IM)-(\d+)-\d{4}(-\d{4})?$")


@dataclass(frozen=True)
class Film:
    """One row of data/films.csv."""

    path: str  # relative to data/raw, with forward slashes
    label: str  # NORMAL or PNEUMONIA
    subtype: str  # normal, bacterial, viral, or unknown
    patient: str  # films with the same key belong to one child
    patient_from: str  # who tells the key: csv, name, dicom, or empty: nothing does, the film is its own patient
    source_split: str  # train, val, test, or empty where the source has no splits
    width: int  # pixels as stored; 0 where the file cannot be decoded
    height: int
    mode: str  # pixel format as stored: L, RGB, I;16, DICOM photometric interpretation, ...
    bytes: int
    sha256: str  # of the file
    pixel_sha256: str  # of the decoded gray pixels; empty where the file cannot be decoded


def read_name(name: str) -> tuple[str, str]:
    """Patient key and subtype that a file name tells, in the grammar of Kermany's set and of Roboflow's copies.

    The key of a pneumonia film is (type, number): bacteria and virus count separately. The key of a normal film is
    (series, number), which groups but does not prove one patient. Any other name is its own patient, subtype unknown;
    the folders in `name` then belong to the key, for two films called 1.png in two folders need not be of one patient.
    """
    path = PurePosixPath(name)  # 1.2.840.7 has no suffix, but is a name of DICOM's kind
    stem = _ROBOFLOW.sub("", path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name)
    if found := _PNEUMONIA.match(stem):
        number, kind = int(found[1]), found[2]
        return f"{kind}-{number}", {"bacteria": "bacterial", "virus": "viral"}[kind]
    if found := _NORMAL.match(stem):
        return f"{found[1]}-{int(found[2])}", "normal"
    return str(path.with_name(stem)), "unknown"


@dataclass(frozen=True)
class Listed:
    """One film as its source lists it; what the source does not tell stays empty."""

    path: str  # relative to the raw folder, with forward slashes
    label: str  # NORMAL or PNEUMONIA
    source_split: str = ""
    patient: str = ""  # empty: the file name tells, or DICOM's PatientID, or nothing
    subtype: str = ""  # empty: label and file name tell


def describe_film(raw: Path, path: str, label: str, source_split: str, patient: str = "", subtype: str = "") -> Film:
    """Measure one file under `raw`; what cannot be decoded is described with width 0 and left to preprocess."""
    file = raw / path
    named_subtype = read_name(path)[1]
    if not subtype:
        subtype = "normal" if label == "NORMAL" else named_subtype.replace("normal", "unknown")
    facts = images.inspect_file(file)
    patient, patient_from = (patient, "csv") if patient else _tell_patient(path, facts.patient)
    return Film(
        path=path,
        label=label,
        subtype=subtype,
        patient=patient,
        patient_from=patient_from,
        source_split=source_split,
        width=facts.width,
        height=facts.height,
        mode=facts.mode,
        bytes=file.stat().st_size,
        sha256=sha256_file(file),
        pixel_sha256=facts.pixel_sha256,
    )


def _tell_patient(path: str, dicom: str) -> tuple[str, str]:
    """Patient key of a film that no CSV names, and what tells it; `dicom` is the hash of its PatientID, or empty.

    Viewers call what they export IM-0001-0001 as well, in a folder per patient: such a name is worth less than a
    PatientID, and counts within its folder, whatever split and class that lies in.
    """
    key, kind = read_name(path)
    if dicom and kind in ("normal", "unknown"):
        return f"dicom-{dicom}", "dicom"
    if kind == "normal":
        own = [part for part in path.split("/")[:-1] if part.lower() not in CLASS_NAMES | SPLIT_NAMES]
        return "/".join([*own, key]), "name"
    return key, "" if kind == "unknown" else "name"


def describe_films(raw: Path, listed: Sequence[Listed], workers: int = 0) -> pd.DataFrame:
    """The film table of all that a source listed, measured by `workers` threads (0 = one per core)."""
    # Threads, not processes: decoding and hashing leave the interpreter's lock, and nothing outlives a killed stage.
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        films = pool.map(lambda film: describe_film(raw, *astuple(film)), listed)
        return to_table(tqdm(films, total=len(listed), desc="describe", unit="film", disable=None))


def to_table(films: Iterable[Film]) -> pd.DataFrame:
    """The film table, sorted by path; a path given twice, an unknown label or an empty table is a ValueError."""
    table = pd.DataFrame([asdict(film) for film in films])
    if table.empty:
        raise ValueError("the source holds no image; check data.source and its settings in params.yaml")
    if not set(table.label) <= set(LABELS):
        wrong = sorted(set(table.label) - set(LABELS))
        raise ValueError(f"label {wrong[0]!r} is neither {LABELS[0]} nor {LABELS[1]}")
    if table.path.duplicated().any():
        raise ValueError(f"{table.path[table.path.duplicated()].iloc[0]} is listed twice")
    return table.sort_values("path", ignore_index=True)


def read_films(path: Path) -> pd.DataFrame:
    """Read data/films.csv with exact types: text stays text, empty stays empty. Any other file is a ValueError."""
    text = {name: str for name, kind in Film.__annotations__.items() if kind is str}
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
    except (FileNotFoundError, ValueError):
        table = pd.DataFrame()
    if list(table.columns) != list(Film.__annotations__):
        raise ValueError(f"{path} is missing, damaged or of another version; run `dvc repro download`")
    return table
