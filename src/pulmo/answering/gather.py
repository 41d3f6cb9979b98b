"""The films that a command line names: files, folders, patterns, archives and standard input, each film once."""

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.films.archives import is_archive, read_members
from pulmo.films.contents import read_file, read_stream
from pulmo.films.names import IMAGE_SUFFIXES

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A film by its name, and a way to its content; OSError or UserError where there is none."""

    name: str
    read: Callable[[], bytes]


def gather_films(named: Sequence[str]) -> tuple[Iterator[Source], int | None]:
    """Each film once, in the order of the names; folders are searched below themselves, in the order of their paths.
    And the largest possible number of films, for a progress bar; None where only reading an archive could tell.

    Of a folder or an archive, what has the suffix of an image, or none as DICOM often has, is a film. A name behind
    which there is nothing gives a source that raises.
    """
    listed = [(name, [Path(STDIN)] if name == STDIN else _list_paths(name)) for name in dict.fromkeys(named)]
    paths = [path for _, matches in listed for path in matches]
    return _open_films(listed), None if any(map(is_archive, paths)) else len(paths)


def _open_films(listed: Sequence[tuple[str, list[Path]]]) -> Iterator[Source]:
    seen: set[tuple[int, int]] = set()
    for name, paths in listed:
        if name == STDIN:
            yield Source(STDIN, partial(read_stream, sys.stdin.buffer))
            continue
        if not paths:
            reason = "the folder holds no film" if Path(name).is_dir() else "not found"
            yield Source(name, partial(_raise, FileNotFoundError(2, reason)))
        for path in paths:
            with suppress(OSError):  # what cannot be looked at says so when it is read
                place = path.stat()
                if (place.st_dev, place.st_ino) in seen:
                    continue
                seen.add((place.st_dev, place.st_ino))
            yield from _open_archive(path) if is_archive(path) else [Source(str(path), partial(read_file, path))]


def detach(source: Source) -> Source:
    """A film that other processes can read too, for which standard input is read at once."""
    if source.name != STDIN:
        return source
    try:
        return Source(STDIN, partial(bytes, source.read()))
    except (OSError, UserError) as error:
        return Source(STDIN, partial(_raise, error))


def _list_paths(name: str) -> list[Path]:
    try:
        return _search(name)
    except RecursionError:
        raise UserError(f"{name}: its folders lie too deep in each other", "name one further down") from None


def _search(name: str) -> list[Path]:
    path = Path(name)
    try:
        if path.is_dir():
            return _list_folder(path)
        if path.exists() or path.is_symlink():
            return [path]
    except PermissionError:
        return [path]  # and reading it says so
    # Path.glob refuses absolute patterns, and its * finds hidden files, which a shell's does not
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
    return [file for match in matches for file in _search(match)]


def _list_folder(folder: Path) -> list[Path]:
    """The films below a folder, links to nothing among them, and the folders that cannot be opened."""
    errors: list[OSError] = []
    found = [Path(place, name) for place, _, names in os.walk(folder, onerror=errors.append) for name in names]
    films = [path for path in found if path.is_file() or (path.is_symlink() and not path.exists())]
    films += [Path(error.filename) for error in errors]
    return sorted(path for path in films if _is_film(path.relative_to(folder)))


def _is_film(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in {"", *IMAGE_SUFFIXES} and not hidden


def _open_archive(path: Path) -> Iterator[Source]:
    empty = True
    try:
        for member, content in read_members(path, lambda name: _is_film(Path(name))):
            empty = False
            yield Source(f"{path}:{member}", partial(bytes, content))
    except (OSError, UserError) as error:
        yield Source(str(path), partial(_raise, error))
    else:
        if empty:
            yield Source(str(path), partial(_raise, FileNotFoundError(2, "the archive holds no film")))


def _raise(error: Exception) -> bytes:
    raise error
