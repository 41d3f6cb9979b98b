"""The film table of all that a source listed, measured file by file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pulmo.base.files import sha256_file
from pulmo.base.process import usable_cores
from pulmo.films.names import read_name
from pulmo.films.patients import Evidence, tell_patients
from pulmo.films.table import Film, Listed, to_table
from pulmo.images.inspect import FileFacts, inspect_file


def describe_films(raw: Path, listed: Sequence[Listed], workers: int = 0) -> pd.DataFrame:
    """The film table of all that a source listed, measured by `workers` threads (0 = one per core).

    Prints what is odd about the patients, and how many films look like masks.
    """
    listed = sorted(listed, key=lambda film: film.path)
    # Threads, not processes: decoding and hashing leave the interpreter's lock, and nothing outlives a killed stage.
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        measured = pool.map(lambda film: _measure(raw / film.path), listed)
        files = list(tqdm(measured, total=len(listed), desc="describe", unit="film", disable=None))
    evidence = [
        Evidence(film.path, film.patient, facts.patient, facts.study)
        for film, (facts, _, _) in zip(listed, files, strict=True)
    ]
    patients, notes = tell_patients(evidence)
    if masks := [film.path for film, (facts, _, _) in zip(listed, files, strict=True) if facts.two_valued]:
        notes.append(
            f"warning: {len(masks):,} of {len(listed):,} films show two gray values alone, as masks do, {masks[0]} for "
            "one; remove those that are no X-rays"
        )
    for note in notes:
        print(note)
    rows = zip(listed, files, patients, strict=True)
    return to_table(_describe_film(film, *file, *patient) for film, file, patient in rows)


def _measure(file: Path) -> tuple[FileFacts, int, str]:
    """Facts, bytes and hash of a file; what cannot be decoded has width 0 and is left to preprocess."""
    return inspect_file(file), file.stat().st_size, sha256_file(file)


def _describe_film(film: Listed, facts: FileFacts, size: int, sha256: str, patient: str, patient_from: str) -> Film:
    named = "normal" if film.label == "NORMAL" else read_name(film.path)[1].replace("normal", "unknown")
    return Film(
        path=film.path,
        label=film.label,
        subtype=film.subtype or named,
        patient=patient,
        patient_from=patient_from,
        source_split=film.source_split,
        width=facts.width,
        height=facts.height,
        mode=facts.mode,
        bytes=size,
        sha256=sha256,
        pixel_sha256=facts.pixel_sha256,
    )
