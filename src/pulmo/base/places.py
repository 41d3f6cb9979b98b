"""A place of its own, beside a file or folder, for each call that writes it, and an end to what dead processes left."""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def own_place(path: Path) -> Iterator[Path]:
    """Yield a path for what is to become `path`, in a folder that no other call has; at the end that is removed.

    The folder stays locked while its process lives. So the next call tells what a killed one left, and removes it.
    """
    folder, lock = _make_folder(path)
    try:
        _remove_leftovers(path)
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, where its file system knows locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_folder(path: Path) -> tuple[Path, int]:
    """A new locked folder, and the descriptor that holds the lock."""
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except OSError as error:
            error.filename = str(path)  # the name that the user knows
            raise
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where leftovers stay
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_leftovers(path: Path) -> None:
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    for folder in path.parent.iterdir():
        if not leftover.fullmatch(folder.name):
            continue
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another process was faster, or it is none of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # a living process holds it
            pass
        finally:
            os.close(lock)
