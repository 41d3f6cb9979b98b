"""Films that wait for their answer and replies that wait for their destination, on disk, so that no kill loses one.

A film is numbered where it arrives. Its file stays in `inbox` until its replies lie in the queue of each destination,
`outbox/QUEUE`, in the order of the numbers, and a reply stays there until its destination has it. What is done twice
after a kill gives the same files under the same names. `failed` keeps what broke the program or was turned down.
"""

import fcntl
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes

REPLY_BYTES = 5 * 2**20  # that the reply to a film may take, for each destination
_DIGITS = 12
_NUMBERED = re.compile(rf"\d{{{_DIGITS}}}[.-]")


class Spool:
    """The folder of one listener; safe to use from many threads."""

    def __init__(self, folder: Path, limit: int, queues: Sequence[str]) -> None:
        """`limit`: bytes that the folder may take. UserError where another listener uses it."""
        self.folder, self.limit, self.queues = folder, limit, tuple(queues)
        self._inbox, self._failed = folder / "inbox", folder / "failed"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # films and names of patients
        own = (self._inbox, self._failed, folder / "outbox")  # what lies beside them is somebody else's
        for place in (*own, *(self._queue(queue) for queue in queues)):
            place.mkdir(exist_ok=True)
        self._lock_file = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another listener uses {folder}", "give each its own --spool") from None
        for part in [part for place in own for part in place.rglob(".*.part")]:  # left by a writer that was killed
            shutil.rmtree(part)
        self._changed = threading.Condition()
        files = [path for place in own for path in place.rglob("*.dcm") if _NUMBERED.match(path.name)]
        self._bytes = sum(path.stat().st_size for path in files)
        self._films = sum(path.parent == self._inbox for path in files)
        self._number = max((int(path.stem[:_DIGITS]) for path in files), default=0)

    def close(self) -> None:
        """Let another listener use the folder."""
        self._lock_file.close()

    @property
    def size(self) -> int:
        """Bytes that the files take."""
        return self._bytes

    def add_film(self, content: bytes) -> int | None:
        """Keep a film until it is answered. Its number; None, and nothing is kept, where there is no room for it and
        for the replies to all films that wait."""
        with self._changed:
            replies = REPLY_BYTES * len(self.queues) * (self._films + 1)
            if self._bytes + len(content) + replies > self.limit:
                return None
            self._number += 1
            self._films += 1
            number = self._number
            self._bytes += len(content)
        try:
            write_bytes(self._inbox / f"{number:0{_DIGITS}}.dcm", content)
        except BaseException:
            self._count(-len(content), films=-1)
            raise
        self.wake()
        return number

    def wait_film(self, seconds: float) -> Path | None:
        """The film that has waited longest; None where none comes within so many seconds."""
        return self._wait(self._inbox, seconds)

    def wait_reply(self, queue: str, seconds: float) -> Path | None:
        """The reply that a destination gets next; None where none comes within so many seconds."""
        return self._wait(self._queue(queue), seconds)

    def put_replies(self, film: Path, replies: Sequence[bytes]) -> None:
        """Put the replies to a film into each queue, in their order, and let go of the film."""
        for queue in self.queues:
            for place, content in enumerate(replies, start=1):
                path = self._queue(queue) / f"{film.stem}-{place}.dcm"
                before = path.stat().st_size if path.exists() else 0
                write_bytes(path, content)
                self._count(len(content) - before)
        self.remove(film)

    def remove(self, path: Path) -> None:
        """Let go of a film that is answered, or of a reply that has arrived."""
        size = path.stat().st_size
        path.unlink()
        self._count(-size, films=-1 if path.parent == self._inbox else 0)

    def set_aside(self, path: Path) -> Path:
        """Move a film that cannot be answered, or a reply that its destination turned down, to `failed`."""
        film = path.parent == self._inbox
        self._failed.mkdir(exist_ok=True)  # which somebody may have removed with what was in it
        target = self._failed / (path.name if film else f"{path.stem}-{path.parent.name}.dcm")
        path.replace(target)
        self._count(0, films=-1 if film else 0)
        return target

    def list_strays(self) -> list[str]:
        """Queues with replies for destinations that are none any more."""
        outbox = self.folder / "outbox"
        return sorted(place.name for place in outbox.iterdir() if place.name not in self.queues and any(_list(place)))

    def wake(self) -> None:
        """Let all who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def _queue(self, queue: str) -> Path:
        return self.folder / "outbox" / queue

    def _wait(self, place: Path, seconds: float) -> Path | None:
        with self._changed:
            if (first := min(_list(place), default=None)) is None:
                self._changed.wait(seconds)
                first = min(_list(place), default=None)
            return first

    def _count(self, size: int, films: int = 0) -> None:
        with self._changed:
            self._bytes += size
            self._films += films
            self._changed.notify_all()


def _list(place: Path) -> Iterator[Path]:
    return (path for path in place.iterdir() if _NUMBERED.match(path.name))
