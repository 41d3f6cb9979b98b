"""Foreign films are decoded in a process of their own: what ends, freezes or fills it costs that film alone.

Ordinary JPEG and PNG stay in the calling process: most films are such, and what they may cost is bounded before they
are decoded, by their pixels, their scans and their parts.
"""

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from PIL import Image

from pulmo.images.colour import is_deep_png
from pulmo.images.film import DecodedFilm, ImageError
from pulmo.images.header import find_header
from pulmo.images.limits import MemoryShortage, hold_pixels
from pulmo.images.ordinary import is_ordinary

# every beginning by which Pillow takes a file for a picture
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0", b"RIFF", b"BM")
_HEAD = 4096
_BYTES = 2  # of most DICOM pixels; how many there are is not known before the worker has read the header
_SIZE = struct.Struct("<Q")
DICOM = "dicom"
# What the system ends a process with that took too long, and what it ends any with when memory runs out
_TOO_LONG, _OUT_OF_MEMORY = signal.SIGPROF, signal.SIGKILL

# Threads and their heaps take addresses, which are what is limited
_FRUGAL = dict.fromkeys(("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_lock = threading.Lock()
_idle: list["Worker"] = []


def is_foreign(content: bytes) -> bool:
    """True where a film is decoded in a process of its own: all but JPEG and PNG, of them PNG in deep colour and what
    is not ordinary."""
    if find_header(content) is not None:  # whatever else it begins with
        return True
    return content.startswith(_PICTURES) and (is_deep_png(content) or not is_ordinary(content))


class Worker:
    """A process that decodes one film after the other; it ends with the process that started it.

    Told `DICOM`, it imports what reads that before the first film comes.
    """

    def __init__(self, *expected: str) -> None:
        command = [sys.executable, "-P", "-m", "pulmo.images.worker", *expected]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | _FRUGAL
        )

    def decode(self, content: bytes) -> DecodedFilm:
        assert self.process.stdin
        assert self.process.stdout
        try:
            send(self.process.stdin, content)
            answer = pickle.loads(receive(self.process.stdout))
        except (OSError, EOFError):
            raise _explain(self.process.wait(), len(content)) from None
        if isinstance(answer, Exception):
            raise answer
        size, pixels, facts = answer
        return DecodedFilm(Image.frombytes("L", size, pixels), *facts)

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self.process.kill()
        self.process.wait()


def decode_guarded(content: bytes) -> DecodedFilm:
    """Decode a film in a worker. Raises ImageError, also where the worker does not survive; MemoryShortage."""
    worker = _take_worker()
    try:
        with hold_pixels(len(content) // _BYTES):
            return worker.decode(content)
    finally:
        if worker.process.poll() is None:
            with _lock:
                _idle.append(worker)


def _take_worker() -> Worker:
    with _lock:
        while _idle:
            if (worker := _idle.pop()).process.poll() is None:
                return worker
    return Worker()


def prepare(films: Iterable[Path]) -> None:
    """Start a worker where one of the films is foreign, so that it is ready when the model is."""
    for film in films:
        try:
            with film.open("rb") as file:
                head = file.read(_HEAD)
            if not is_foreign(head):
                continue
        except (OSError, ImageError):  # said where the film is read
            continue
        with _lock:
            _idle.append(Worker(DICOM) if find_header(head) is not None else Worker())
        return


def send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_SIZE.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """The next message of a pipe; EOFError at its end."""
    size = pipe.read(_SIZE.size)
    if len(size) < _SIZE.size:
        raise EOFError
    content = pipe.read(_SIZE.unpack(size)[0])
    if len(content) < _SIZE.unpack(size)[0]:
        raise EOFError
    return content


def _explain(status: int, size: int) -> Exception:
    if status == -_TOO_LONG:
        return ImageError("decoding takes longer than any film of its size needs")
    if status == -_OUT_OF_MEMORY:
        return MemoryShortage(size / 1e6)
    name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    return ImageError(f"decoding ended its process ({name}), so the film is damaged")


def _end_workers() -> None:
    while _idle:
        _idle.pop().end()


atexit.register(_end_workers)
os.register_at_fork(after_in_child=_idle.clear)  # whose pipes are the parent's
