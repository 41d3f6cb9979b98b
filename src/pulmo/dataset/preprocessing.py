"""All films of the table, decoded once into one array on disk that training maps into memory.

The array is written front to back with ordinary writes, not through a memory map: memory stays the same however many
films there are, and a full disk is an error that can be caught instead of a killed process.
"""

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores
from pulmo.images.decode import read_film
from pulmo.images.film import FittedFilm, ImageError
from pulmo.images.limits import share_gate

CHUNK = 8  # films per task: 20 ms of decoding, 400 kB of result at 224 pixels
FILMS_PER_WORKER = 128  # with fewer films another process takes longer to start than it saves
LISTED = 10  # rejected films that the error names; rejected.csv has them all


@dataclass(frozen=True)
class Processed:
    """The outcome of preprocessing: the number of films in images.npy, (path, reason) of each that cannot be decoded,
    and (path, note) of each that is not shown as its display attributes say."""

    films: int
    rejected: tuple[tuple[str, str], ...]
    noted: tuple[tuple[str, str], ...] = ()


def process_films(
    raw: Path, paths: Sequence[str], size: int, fit: str, workers: int, max_rejected: int, folder: Path
) -> Processed:
    """Decode `paths` under `raw` into `folder`: images.npy (uint8, N x size x size), rejected.csv, and last index.csv.

    Rows follow the sorted paths, whatever the number of workers (0 = one per core); index.csv exists only beside a
    complete images.npy. Raises UserError, after writing rejected.csv, when more than `max_rejected` films, or all of
    them, cannot be decoded; OSError with the file's name when a film is missing or `folder` cannot be written.
    """
    import pandas as pd

    from pulmo.base.files import whole_file, write_csv

    ordered = sorted(paths)
    images, index, rejects = folder / "images.npy", folder / "index.csv", folder / "rejected.csv"
    with _naming(images):
        folder.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)
        _announce(images, len(ordered), size)
        with whole_file(images) as temporary:
            with temporary.open("wb") as file:
                kept, rejected, noted = _write_array(file, raw, ordered, size, fit, workers or usable_cores())
            with _naming(rejects):
                write_csv(rejects, pd.DataFrame(rejected, columns=["path", "reason"]))
            _judge(rejected, len(ordered), max_rejected, rejects)
    with _naming(index):
        write_csv(index, pd.DataFrame({"row": range(len(kept)), "path": kept}))
    return Processed(len(kept), tuple(rejected), tuple(noted))


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
    file: BinaryIO, raw: Path, paths: list[str], size: int, fit: str, workers: int
) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """Write an .npy file of the films that decode; return their paths in row order, (path, reason) of the rest, and
    (path, note) of those that have one."""
    kept: list[str] = []
    rejected: list[tuple[str, str]] = []
    noted: list[tuple[str, str]] = []
    start = _write_header(file, len(paths), size)
    waiting = iter(paths)
    with tqdm(total=len(paths), unit=" films", disable=None) as progress:
        for results in _decode_films(raw, paths, size, fit, workers):
            for result in results:
                path = next(waiting)
                if isinstance(result, str):
                    rejected.append((path, result))
                else:
                    kept.append(path)
                    file.write(result.pixels.data)
                    if result.note:
                        noted.append((path, result.note))
            progress.update(len(results))
    file.seek(0)
    # NumPy pads the header so that the first axis can change without moving the data
    assert _write_header(file, len(kept), size) == start
    return kept, rejected, noted


def _write_header(file: BinaryIO, rows: int, size: int) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _decode_films(raw: Path, paths: list[str], size: int, fit: str, workers: int) -> Iterator[list[FittedFilm | str]]:
    """Yield, in the order of `paths` and CHUNK at a time, each film or the reason why it has none."""
    chunks = ([raw / path for path in paths[first : first + CHUNK]] for first in range(0, len(paths), CHUNK))
    processes = min(workers, len(paths) // FILMS_PER_WORKER)
    if processes < 2:
        for chunk in chunks:
            yield _read_chunk(chunk, size, fit)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside threads, and differs between systems
    with ProcessPoolExecutor(processes, context, initializer=partial(_start_worker, context.Lock())) as pool:
        pending: deque[Future[list[FittedFilm | str]]] = deque()
        try:
            for chunk in chunks:
                if len(pending) == 2 * processes:  # bounds the memory, and keeps every process busy
                    yield pending.popleft().result()
                pending.append(pool.submit(_read_chunk, chunk, size, fit))
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            reason = "a process that decodes films was killed, most likely for want of memory"
            raise UserError(reason, f"lower preprocess.workers (it was {processes} processes)") from None


def _read_chunk(files: list[Path], size: int, fit: str) -> list[FittedFilm | str]:
    results: list[FittedFilm | str] = []
    for file in files:
        try:
            results.append(read_film(file, size, fit))
        except ImageError as error:
            results.append(error.message)
    return results


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


def _judge(rejected: list[tuple[str, str]], films: int, max_rejected: int, rejects: Path) -> None:
    if len(rejected) <= max_rejected and len(rejected) < films:
        return
    allowed = f"preprocess.max_rejected allows {max_rejected}"
    listed = "; ".join(f"{path} ({reason})" for path, reason in rejected[:LISTED])
    more = f"; and {len(rejected) - LISTED} more" if len(rejected) > LISTED else ""
    raise UserError(
        f"{len(rejected)} of {films} films cannot be decoded, {allowed}: {listed}{more}",
        f"all are listed in {rejects}: repair or remove them, or raise preprocess.max_rejected",
    )
