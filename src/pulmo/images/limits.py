"""Memory and processor time that decoding one film may take."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pulmo.base.errors import UserError

if TYPE_CHECKING:
    from pulmo.films.remote import FilmFile

_MEGABYTE = 2**20
_MEMORY = 256 * _MEGABYTE  # beside what the film's file and its pixels account for
_COPIES = 6  # of the file's content, and of what its compressed pixels become
_PIXEL = 24  # bytes, where colour of 16 bits is weighed and stretched
_LEAST = 4  # bytes a pixel, of the simplest film
_SECONDS, _SECONDS_A_MEGABYTE, _SECONDS_A_MEGAPIXEL = 1.5, 1.0, 0.3
_STATM = Path("/proc/self/statm")  # Linux; elsewhere memory is not limited

_LARGE = 16_000_000  # pixels, which hardly any detector exceeds

_gate: AbstractContextManager[Any] = threading.Lock()
_ceiling = resource.getrlimit(resource.RLIMIT_AS)[0]  # what whoever started this process allows it
_limited = False


class MemoryShortage(UserError):
    """Decoding stopped for want of memory, which says nothing about the film."""

    def __init__(self, megabytes: float) -> None:
        reason = f"decoding takes about {max(1, megabytes):,.0f} MB of memory, which cannot be had"
        super().__init__(reason, "free memory, then run again")
        self.megabytes = megabytes

    def __reduce__(self) -> tuple[type, tuple[float], dict[str, str]]:
        return type(self), (self.megabytes,), {"message": self.message}

    def of(self, film: "FilmFile") -> Self:
        """The same, naming the film."""
        self.message = f"{film}: {self.message}"
        return self


@contextmanager
def name_shortage(film: "FilmFile") -> Iterator[None]:
    """Have a lack of memory in this block, for the content of a film or its pixels, be MemoryShortage of that film."""
    try:
        yield
    except MemoryShortage as error:
        raise error.of(film) from None
    except MemoryError:
        raise MemoryShortage(film.stat().st_size / 1e6).of(film) from None


def share_gate(gate: AbstractContextManager[Any]) -> None:
    """Let this process and all others that share the lock decode one large film at a time."""
    global _gate
    _gate = gate


@contextmanager
def hold_pixels(pixels: int) -> Iterator[None]:
    """Wait until no other large film is being decoded, where this one is: many workers then hold many films of
    ordinary size, but one of the largest alone."""
    with _gate if pixels > _LARGE else nullcontext():
        yield


def limit_film(size: int) -> None:
    """Limit this process, from now on, to what a film whose file has `size` bytes may take."""
    global _limited
    _limited = True
    _limit_memory(_MEMORY + _COPIES * size)
    _limit_seconds(_SECONDS + _SECONDS_A_MEGABYTE * size / _MEGABYTE)


def lift_limits() -> None:
    """End the limits of one film, for the work between two."""
    _limit_seconds(0)
    resource.setrlimit(resource.RLIMIT_AS, (_ceiling, resource.getrlimit(resource.RLIMIT_AS)[1]))


def is_short() -> bool:
    """True where this process may take all that it was started with, so that a lack of memory is no film's fault."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] == _ceiling


def allow_pixels(pixels: int) -> None:
    """Make sure that there is memory for so many pixels, and raise the limits of this process, where it has any, by
    what they take. Raises MemoryShortage."""
    try:
        if _limited:
            _limit_memory(_MEMORY + _PIXEL * pixels)
            _limit_seconds(signal.getitimer(signal.ITIMER_PROF)[0] + _SECONDS_A_MEGAPIXEL * pixels / 1e6)
        np.empty(_LEAST * pixels, np.uint8)  # untouched, it costs nothing
    except MemoryError:
        raise MemoryShortage(_LEAST * pixels / 1e6) from None


def _limit_memory(room: int) -> None:
    if not _STATM.exists():
        return
    pages = int(_STATM.read_text().split()[0])
    wanted = pages * resource.getpagesize() + room
    if _ceiling != resource.RLIM_INFINITY:
        wanted = min(wanted, _ceiling)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_seconds(seconds: float) -> None:
    """The system ends this process after so many seconds of its processors, even within a library."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
