"""The film table of all that a source listed, measured file by file."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from pulmo.base.blocks import GB, Blocks
from pulmo.base.process import usable_cores
from pulmo.films.names import is_random_name, read_name
from pulmo.films.patients import Evidence, tell_patients
from pulmo.films.places import find_films
from pulmo.films.remote import FilmFile
from pulmo.films.rows.table import Film, Listed, to_table
from pulmo.images.inspect import FileFacts, inspect_file
from pulmo.images.limits import name_shortage
from pulmo.images.stamp import decoding_stamp


class Measured(NamedTuple):
    """A film's file, looked at once."""

    facts: FileFacts
    size: int  # bytes
    sha256: str


OnRead = Callable[[str, bytes], None]  # called with the hash and the content of a file, in any thread
Measure = Callable[[Sequence[FilmFile]], Iterable[Measured]]  # in the order of the files


def facts_store(folder: Path | None = None, most: float = 0) -> Blocks:
    """What earlier runs found out about the content of films, in up to `most` GB below `folder`; none without one."""
    return Blocks(folder, f"facts-{decoding_stamp()}", round(most * GB))


def describe_films(
    raw: Path,
    listed: Sequence[Listed],
    workers: int = 0,
    known: Blocks | None = None,
    on_read: OnRead | None = None,
    measure: Measure | None = None,
) -> pd.DataFrame:
    """The film table of all that a source listed, whose files `measure` looks at, or else `workers` threads (0 = one
    per core).

    What is `known` of a content is not found out again. Prints what is odd about the patients, and how many films look
    like masks.
    """
    listed = sorted(listed, key=lambda film: film.path)
    files = find_films(raw, [film.path for film in listed])
    measure = measure or partial(_measure_here, workers=workers, known=known or facts_store(), on_read=on_read)
    measured = list(tqdm(measure(files), total=len(files), desc="describe", unit="film", disable=None))
    evidence = [
        Evidence(film.path, _read_patient(film), file.facts.patient, file.facts.study)
        for film, file in zip(listed, measured, strict=True)
    ]
    patients, notes = tell_patients(evidence)
    if masks := [film.path for film, file in zip(listed, measured, strict=True) if file.facts.two_valued]:
        notes.append(
            f"warning: {len(masks):,} of {len(listed):,} films show two gray values alone, as masks do, {masks[0]} for "
            "one; remove those that are no X-rays"
        )
    for note in notes:
        print(note)
    rows = zip(listed, measured, patients, strict=True)
    return to_table((_describe_film(film, file, *patient) for film, file, patient in rows), listed)


def _read_patient(film: Listed) -> str:
    """The patient that a CSV names, if it does not just repeat the random name of the film."""
    return "" if is_random_name(film.patient) and PurePosixPath(film.path).stem == film.patient else film.patient


def _measure_here(files: Sequence[FilmFile], workers: int, known: Blocks, on_read: OnRead | None) -> Iterator[Measured]:
    # Threads, not processes: decoding and hashing leave the interpreter's lock, and nothing outlives a killed stage.
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        yield from pool.map(partial(measure_film, known=known, on_read=on_read), files)


def measure_film(file: FilmFile, known: Blocks, on_read: OnRead | None) -> Measured:
    """Facts, bytes and hash of a file, which is read once; what cannot be decoded has width 0 and is left to
    preprocess."""
    with name_shortage(file):
        content = file.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        # the name too, for it may say that the patient which the file names is none
        key = hashlib.sha256(f"{sha256} {file.stem}".encode(errors="surrogateescape")).digest()
        stored = known.get(key)
        facts = FileFacts(*json.loads(stored)) if stored else inspect_file(file, content)
        if facts.width and not stored:
            known.put(key, json.dumps(astuple(facts)).encode())
        if on_read:
            on_read(sha256, content)
    return Measured(facts, len(content), sha256)


def _describe_film(film: Listed, file: Measured, patient: str, patient_from: str) -> Film:
    facts = file.facts
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
        bytes=file.size,
        sha256=file.sha256,
        pixel_sha256=facts.pixel_sha256,
    )
