"""Values by their keys in a folder of a few large files, which many processes may read and extend at once.

A process writes into files of its own and never into those of another, so there is nothing to lock. Whatever a kill, a
full disk or a stray byte leaves of a value does not fit its checksum and counts as absent, as does all that is deleted.
"""

import hashlib
import os
import secrets
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

GB = 10**9
_HEADER = struct.Struct("<4s32s32sI")  # magic, key, SHA-256 of key and value, bytes of the value
_MAGIC = b"pulm"
_BLOCK = 64_000_000  # bytes of a file; the oldest files make room for new ones
_KEY = 32


class _Place(NamedTuple):
    file: Path
    offset: int  # of the value
    size: int  # of the value, in bytes
    checksum: bytes


class Blocks:
    """The values of one kind, in a folder of their own below `root`; with `root` None there are none, nor will be.
    Threads may share it.

    All kinds together take no more than `most` bytes, beside what other processes are writing at the same time. What
    was not asked for the longest makes room, and `reserve` bytes of the disk stay free. A disk that refuses writes ends
    the storing, not the program.
    """

    def __init__(self, root: Path | None, kind: str, most: int) -> None:
        self._root, self._most, self.reserve = root or Path(), most if root else 0, 0
        self._folder = self._root / kind
        self._block = min(_BLOCK, self._most // 4)
        self._open: BinaryIO | None = None
        self._lock = threading.Lock()
        self._used: set[Path] = set()
        self._writes = self._most > 0
        files = sorted(self._folder.glob("*.block")) if self._writes else []
        self._places = {key: place for file in files for key, place in _read_places(file)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End writing; what is there can still be asked for."""
        if self._open:
            self._open.close()
            self._open = None

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, if it is there and whole."""
        if not (place := self._places.get(key)):
            return None
        try:
            with place.file.open("rb", buffering=0) as file:
                file.seek(place.offset)
                value = file.read(place.size)
            if place.file not in self._used:
                self._used.add(place.file)
                os.utime(place.file)
        except OSError:  # another process made room
            return None
        return value if hashlib.sha256(key + value).digest() == place.checksum else None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, where there is room; `key` has 32 bytes."""
        assert len(key) == _KEY
        checksum = hashlib.sha256(key + value).digest()
        with self._lock:
            try:
                if self._writes and (file := self._writable(_HEADER.size + len(value))):
                    start = file.tell() + _HEADER.size
                    file.write(_HEADER.pack(_MAGIC, key, checksum, len(value)) + value)
                    file.flush()
                    self._places[key] = _Place(Path(file.name), start, len(value), checksum)
            except OSError:
                self._writes = False

    def _writable(self, size: int) -> BinaryIO | None:
        """The file to write `size` bytes to: the open one, or a new one for which old ones made room."""
        if self._open and self._open.tell() + size <= self._block:
            return self._open
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        if size > self._block or not self._make_room():
            self._writes = False
            return None
        self._open = (self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.block").open("xb")
        return self._open

    def _make_room(self) -> bool:
        """Delete what was not used for the longest until a new file fits; False where the disk has no room for it."""
        files: dict[Path, os.stat_result] = {}
        for file in sorted(self._root.glob("*/*.block")):
            with suppress(FileNotFoundError):  # another process made room
                files[file] = file.stat()
        taken = sum(facts.st_size for facts in files.values())
        for file, facts in sorted(files.items(), key=lambda item: item[1].st_mtime_ns):
            if taken + self._block <= self._most:
                break
            taken -= facts.st_size
            file.unlink(missing_ok=True)
        return shutil.disk_usage(self._root).free >= self._block + self.reserve


def _read_places(file: Path) -> Iterator[tuple[bytes, _Place]]:
    """Key and place of each value of a file, up to the first that is not whole."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            offset = 0
            while len(header := opened.read(_HEADER.size)) == _HEADER.size:
                magic, key, checksum, length = _HEADER.unpack(header)
                offset += _HEADER.size
                if magic != _MAGIC or offset + length > size:
                    return
                yield key, _Place(file, offset, length, checksum)
                offset += length
                opened.seek(offset)
    except OSError:  # another process made room
        return
