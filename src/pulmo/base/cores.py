"""The cores of this machine, shared by stages that would each fill them: they take turns, whole seconds each.

Two trainings at once on the same cores hinder each other far more than they should: threads of one wait, spinning, for
threads that the other has pushed aside, and most of that spinning is oneDNN's, which OMP_WAIT_POLICY does not reach.
Fewer threads each would cure it, but another number of threads gives other digits. In turns each training keeps its
threads and its digits, and two take about twice as long as one.
"""

import fcntl
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from pulmo.base.process import usable_cores

TURN = 2.0  # seconds
PATIENCE = 300.0  # seconds after which the one whose turn it is counts as stopped, and is no longer waited for
_POLL = 0.01  # seconds
_CROWDED = 60  # percent of the cores that others use

_own: "Turns | None" = None


@contextmanager
def taking_turns(threads: int, report: Callable[[str], None] = print) -> Iterator[None]:
    """Compute in the block with that many threads only while as many cores are free of other such blocks of this user.

    `give_way` inside the block lets others have their turn.
    """
    global _own
    turns = Turns(min(threads, usable_cores()), report=report)
    turns.take()
    if turns.threads > 1 and (busy := _percent_busy()) > _CROWDED:
        report(
            f"other programs use {busy:.0f}% of the cores: {threads} threads will mostly wait for one another, and "
            "OMP_NUM_THREADS=1 would lose less, with other digits"
        )
    _own = turns
    try:
        yield
    finally:
        _own = None
        turns.leave()


def give_way() -> None:
    """Between two steps of a computation: end this turn once it has lasted its seconds and another process waits."""
    if _own is not None:
        _own.give_way()


class Turns:
    """The turns of one process. Each core is a file, and who computes on a core holds its lock, which ends with him."""

    def __init__(
        self,
        threads: int,
        folder: Path | None = None,
        turn: float | None = None,
        patience: float = PATIENCE,
        report: Callable[[str], None] = print,
    ) -> None:
        self.threads, self.patience, self.report = threads, patience, report
        self.turn = TURN if turn is None else turn
        self.folder = folder or _common_folder()
        self._cores: list[IO[str]] = []
        self._began = 0.0
        self._announced = False

    def take(self) -> None:
        """Wait until enough cores are free. One process waits for cores, and the others for it. Where the files that it
        needs cannot be had, the stage goes on without turns."""
        try:
            self._wait()
        except OSError as error:
            self.report(f"no turns with other stages ({error.strerror or error})")
        self._began = time.monotonic()

    def _wait(self) -> None:
        asked = time.monotonic()
        first = self._lock("first")
        while not (first and self._take_free()) and time.monotonic() - asked < self.patience:
            if not self._announced:
                self.report(f"another stage has the cores: taking turns with it, {self.turn:g} s each")
                self._announced = True
            time.sleep(_POLL)
            first = first or self._lock("first")
        if first:
            first.close()

    def give_way(self) -> None:
        """End this turn once it has lasted its seconds and another process waits, and wait for the next."""
        if time.monotonic() - self._began > self.turn and self._is_awaited():
            self.leave()
            time.sleep(3 * _POLL)  # the one that waits looks again meanwhile
            self.take()

    def leave(self) -> None:
        """Leave the cores to others."""
        for core in self._cores:
            core.close()
        self._cores.clear()

    def _take_free(self) -> bool:
        """Take what cores are free, as many as are still needed; True once there are enough."""
        for number in range(usable_cores()):
            if len(self._cores) < self.threads and (core := self._lock(f"core-{number}")):
                self._cores.append(core)
        return len(self._cores) == self.threads

    def _is_awaited(self) -> bool:
        try:
            first = self._lock("first")
        except OSError:
            return False
        if first:
            first.close()
        return first is None

    def _lock(self, name: str) -> IO[str] | None:
        """The locked file, or None where it is locked already, also by this process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # whatever tidies temporary folders may remove it
        if self.folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.folder} belongs to somebody else")
        file = os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file


def _percent_busy() -> float:
    return float(psutil.cpu_percent(interval=0.2))


def _common_folder() -> Path:
    """The folder of all processes of this user that may use the same cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [os.cpu_count()]
    return Path(tempfile.gettempdir()) / f"pulmo-cores-{os.getuid()}-{zlib.crc32(repr(cores).encode()):08x}"
