"""The film table of all that a source listed, measured file by file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pulmo.base.files import sha256_file
from pulmo.base.process import usable_cores
from pulmo.films.names import read_name, tell_patient
from pulmo.films.table import Film, Listed, to_table
from pulmo.images.inspect import inspect_file


def describe_film(raw: Path, path: str, label: str, source_split: str, patient: str = "", subtype: str = "") -> Film:
    """Measure one file under `raw`; what cannot be decoded is described with width 0 and left to preprocess."""
    file = raw / path
    named_subtype = read_name(path)[1]
    if not subtype:
        subtype = "normal" if label == "NORMAL" else named_subtype.replace("normal", "unknown")
    facts = inspect_file(file)
    patient, patient_from = (patient, "csv") if patient else tell_patient(path, facts.patient)
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


def describe_films(raw: Path, listed: Sequence[Listed], workers: int = 0) -> pd.DataFrame:
    """The film table of all that a source listed, measured by `workers` threads (0 = one per core)."""
    # Threads, not processes: decoding and hashing leave the interpreter's lock, and nothing outlives a killed stage.
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        films = pool.map(lambda film: describe_film(raw, *astuple(film)), listed)
        return to_table(tqdm(films, total=len(listed), desc="describe", unit="film", disable=None))
