"""All films of the table, decoded once into one array on disk that training maps into memory.

The array is written front to back with ordinary writes, not through a memory map: memory stays the same however many
films there are, and a full disk is an error that can be caught instead of a killed process. What earlier runs decoded,
killed ones too, comes from a store.
"""

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from pulmo.base.cluster import join_cluster
from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores
from pulmo.films.places import check_unchanged, find_films
from pulmo.films.remote import FilmFile
from pulmo.images.decode import read_film
from pulmo.images.film import FittedFilm, ImageError
from pulmo.images.film_store import FilmStore
from pulmo.images.limits import name_shortage, share_gate

if TYPE_CHECKING:  # its import takes longer than the start of a process that decodes
    import pandas as pd

CHUNK = 8  # films per task: 20 ms of decoding, 400 kB of result at 224 pixels
FAR_CHUNK = 32  # likewise on a cluster, where a task costs the head 3 ms
FILMS_PER_WORKER = 128  # with fewer films another process takes longer to start than it saves
LISTED = 10  # rejected films that the error names; rejected.csv has them all


@dataclass(frozen=True)
class Processed:
    """The outcome of preprocessing: the number of films in images.npy, (path, reason) of each that cannot be decoded,
    (path, note) of each that is not shown as its display attributes say, and how many were in the store."""

    films: int
    rejected: tuple[tuple[str, str], ...]
    noted: tuple[tuple[str, str], ...] = ()
    stored: int = 0


class _Source(NamedTuple):
    """A film to decode."""

    path: str  # in the film table
    file: FilmFile
    sha256: str  # of the file
    bytes: int


_Task = Callable[[], list[FittedFilm | str]]
_Result = tuple[_Source, FittedFilm | str, bool]  # the film or the reason why there is none; True = from the store


def process_films(
    raw: Path,
    films: "pd.DataFrame",
    store: FilmStore,
    workers: int,
    max_rejected: int,
    folder: Path,
    engine: str = "local",
) -> Processed:
    """Decode `films` (columns path, sha256, bytes) of `raw` into `folder`: images.npy (uint8, N x size x size),
    rejected.csv, and last index.csv. Size and fit are those of `store`, which keeps each film that it has not got.

    Rows follow the sorted paths, whatever the number of workers (0 = one per core) and whether they are processes of
    this machine or of a Ray cluster (`engine`: local or ray); index.csv exists only beside a complete images.npy.
    Raises UserError where a film has changed, and after writing rejected.csv, when more than `max_rejected` films, or
    all of them, cannot be decoded; OSError with the file's name when a film is missing or `folder` cannot be written.
    """
    import pandas as pd

    from pulmo.base.files import whole_file, write_csv

    films = films.sort_values("path")
    files = find_films(raw, films.path)
    sources = [_Source(*each) for each in zip(films.path, files, films.sha256, films.bytes, strict=True)]
    images, index, rejects = folder / "images.npy", folder / "index.csv", folder / "rejected.csv"
    with _naming(images):
        folder.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)
        _announce(images, len(sources), store.size)
        store.leave_room(len(sources))
        with whole_file(images) as temporary:
            with temporary.open("wb") as file:
                decoded = _decode_films(sources, store, workers, engine)
                paths, done = _write_array(file, decoded, len(sources), store)
            with _naming(rejects):
                write_csv(rejects, pd.DataFrame(done.rejected, columns=["path", "reason"]))
            _judge(done.rejected, len(sources), max_rejected, rejects)
    with _naming(index):
        write_csv(index, pd.DataFrame({"row": range(len(paths)), "path": paths}))
    return done


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as a full disk does, the name of the file being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _announce(images: Path, films: int, size: int) -> None:
    needed, free = films * size * size, shutil.disk_usage(images.parent).free
    print(f"{films:,} films of {size} x {size} pixels will take {needed / 1e6:,.1f} MB in {images}")
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.1f} MB needed, only {free / 1e6:,.1f} MB free", str(images))


def _write_array(
    file: BinaryIO, decoded: Iterable[_Result], films: int, store: FilmStore
) -> tuple[list[str], Processed]:
    """Write an .npy file of the films that decode; return their paths in row order, and what became of all."""
    paths: list[str] = []
    rejected: list[tuple[str, str]] = []
    noted: list[tuple[str, str]] = []
    stored = 0
    start = _write_header(file, films, store.size)
    for source, result, is_stored in tqdm(decoded, total=films, unit=" films", disable=None):
        if isinstance(result, str):
            rejected.append((source.path, result))
            continue
        if not is_stored:
            store.put(source.sha256, result)
        stored += is_stored
        paths.append(source.path)
        file.write(result.pixels.data)
        if result.note:
            noted.append((source.path, result.note))
    file.seek(0)
    # NumPy pads the header so that the first axis can change without moving the data
    assert _write_header(file, len(paths), store.size) == start
    return paths, Processed(len(paths), tuple(rejected), tuple(noted), stored)


def _write_header(file: BinaryIO, rows: int, size: int) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _decode_films(
    sources: Sequence[_Source], store: FilmStore, workers: int, engine: str = "local"
) -> Iterator[_Result]:
    """Yield, in the order of `sources`, each film from the store, or decoded by one of several workers."""
    missing = sum(source.sha256 not in store for source in sources)
    waiting: deque[tuple[Sequence[_Source], list[FittedFilm | None], _Task]] = deque()
    size = FAR_CHUNK if engine == "ray" else CHUNK
    with _open_pool(workers, missing, engine) as (submit, window):
        for first in range(0, len(sources), size):
            chunk = sources[first : first + size]
            stored = [_recall(source, store) for source in chunk]
            wanted = [source for source, film in zip(chunk, stored, strict=True) if film is None]
            task = partial(_read_chunk, wanted, store.size, store.fit)
            waiting.append((chunk, stored, submit(task) if wanted else task))
            if len(waiting) > window():  # bounds the memory, and keeps every worker busy
                yield from _join(*waiting.popleft())
        while waiting:
            yield from _join(*waiting.popleft())


@contextmanager
def _open_pool(workers: int, films: int, engine: str) -> Iterator[tuple[Callable[[_Task], _Task], Callable[[], int]]]:
    """A function that has a task done and returns how to get its result, and one that says how many may be under way,
    for `films` that are to be decoded."""
    processes = min(workers or usable_cores(), films // FILMS_PER_WORKER)
    if engine == "ray":
        with join_cluster(workers) as cluster:
            yield cluster.submit, cluster.window
    elif processes > 1:
        try:
            with _start_pool(processes) as pool, _ending_processes():
                yield partial(_submit, pool), lambda: 2 * processes
        except BrokenProcessPool:
            reason = "a process that decodes films was killed, most likely for want of memory"
            raise UserError(reason, f"lower preprocess.workers (it was {processes} processes)") from None
    else:
        yield lambda task: task, lambda: 0


def _recall(source: _Source, store: FilmStore) -> FittedFilm | None:
    """The film from the store, unless its file has another size than the film table says."""
    return store.get(source.sha256) if source.file.stat().st_size == source.bytes else None


def _join(chunk: Sequence[_Source], stored: Sequence[FittedFilm | None], decode: _Task) -> Iterator[_Result]:
    decoded = iter(decode())
    for source, film in zip(chunk, stored, strict=True):
        yield source, next(decoded) if film is None else film, film is not None


def _read_chunk(sources: Sequence[_Source], size: int, fit: str) -> list[FittedFilm | str]:
    results: list[FittedFilm | str] = []
    for source in sources:
        with name_shortage(source.file):
            content = source.file.read_bytes()
            try:
                results.append(read_film(content, size, fit))
            except ImageError as error:
                results.append(error.message)
            else:
                check_unchanged(source.file, content, source.sha256)
    return results


def _start_pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside threads, and differs between systems
    return ProcessPoolExecutor(processes, context, initializer=partial(_start_worker, context.Lock()))


@contextmanager
def _ending_processes() -> Iterator[None]:
    """End the processes of a pool that breaks: one that was starting when another was killed would wait for films for
    ever, and the pool for its end."""
    others = multiprocessing.active_children()
    try:
        yield
    except BrokenProcessPool:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise


def _submit(pool: ProcessPoolExecutor, task: _Task) -> _Task:
    try:
        return pool.submit(task).result
    except OSError as error:
        if error.errno is None:  # "handle is closed": one process was killed while the pool was starting the next
            raise BrokenProcessPool from error
        raise


def _start_worker(gate: AbstractContextManager[Any]) -> None:
    share_gate(gate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's process waits for ever on a parent that was killed; this one ends with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _judge(rejected: Sequence[tuple[str, str]], films: int, max_rejected: int, rejects: Path) -> None:
    if len(rejected) <= max_rejected and len(rejected) < films:
        return
    allowed = f"preprocess.max_rejected allows {max_rejected}"
    listed = "; ".join(f"{path} ({reason})" for path, reason in rejected[:LISTED])
    more = f"; and {len(rejected) - LISTED} more" if len(rejected) > LISTED else ""
    raise UserError(
        f"{len(rejected)} of {films} films cannot be decoded, {allowed}: {listed}{more}",
        f"all are listed in {rejects}: repair or remove them, or raise preprocess.max_rejected",
    )
