"""Where the films of the film table lie: copies in data/raw, or files elsewhere that are read where they are.

In the second case data/raw holds a list alone, which DVC keeps in the place of the films. Size and time of a file, or
else its hash, tell whether it is still the film of the film table.
"""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pulmo.base.errors import UserError
from pulmo.base.files import write_csv
from pulmo.films.remote import FilmFile, film_file

if TYPE_CHECKING:  # its import takes longer than the start of a process that decodes films
    import pandas as pd

LIST = ".in_place.csv"  # a name that no film has, for hidden files are none
_COLUMNS = {"path": str, "file": str, "bytes": int, "modified": int}
_CURE = "run `dvc repro download`"
CHANGED_CURE = "put them back, or take the films as they are now: `dvc repro --force download`, then `dvc repro`"
_THREADS = 16  # that ask for sizes and times, most of which wait for a disk or a network
_LISTED = 10


class Place(NamedTuple):
    """A film that is read where it lies."""

    file: str  # absolute path, or address
    bytes: int
    modified: int  # ns since 1970


def write_places(raw: Path, files: Mapping[str, FilmFile]) -> None:
    """List where the films lie (by their paths in the film table), with the size and time that each file has now."""
    import pandas as pd

    with ThreadPoolExecutor(_THREADS) as pool:
        stats = pool.map(lambda file: file.stat(), files.values())
        pairs = zip(files.items(), stats, strict=True)
        rows = sorted((path, str(file), stat.st_size, stat.st_mtime_ns) for (path, file), stat in pairs)
    write_csv(raw / LIST, pd.DataFrame(rows, columns=list(_COLUMNS)))


def read_places(raw: Path) -> dict[str, Place]:
    """The films that are read where they lie, by their paths in the film table; none where data/raw holds copies."""
    from pulmo.films.rows.table import read_columns

    if not (raw / LIST).exists():
        return {}
    table = read_columns(raw / LIST, _COLUMNS, _CURE)
    rows = zip(table.path, table.file, table.bytes, table.modified, strict=True)
    return {path: Place(file, int(size), int(modified)) for path, file, size, modified in rows}


def find_films(raw: Path, paths: Iterable[str]) -> list[FilmFile]:
    """The file of each film of the film table. Every reader of films asks here."""
    places = read_places(raw)
    if not places:
        return [raw / path for path in paths]
    try:
        return [film_file(places[path].file) for path in paths]
    except KeyError as error:
        raise UserError(f"{raw / LIST} does not list {error.args[0]}", _CURE) from None


def list_changed(places: Mapping[str, Place], films: "pd.DataFrame") -> list[str]:
    """Those of the `places` whose film is not there, or not as the film table (columns path, sha256) knows it.

    A file of the same size and time counts as unchanged. Of any other its hash decides.
    """
    hashes = dict(zip(films.path, films.sha256, strict=True))
    with ThreadPoolExecutor(_THREADS) as pool:
        same = pool.map(lambda path: _is_same(places[path], hashes.get(path, "")), places)
        return [path for path, unchanged in zip(places, same, strict=True) if not unchanged]


def refuse_changed(raw: Path, films: "pd.DataFrame") -> None:
    """UserError that names films which are read where they lie and are no longer what `download` saw there."""
    places = read_places(raw)
    if changed := list_changed(places, films):
        files = [film_file(places[path].file) for path in changed]
        listed = "; ".join(f"{file} {'has changed' if file.exists() else 'is not there'}" for file in files[:_LISTED])
        more = f"; and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
        raise UserError(f"{len(files)} of {len(places)} films are not as they were: {listed}{more}", CHANGED_CURE)


def check_unchanged(file: FilmFile, content: bytes, sha256: str) -> None:
    """UserError where the content of a film has another hash than the film table says."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{file} has changed since it was listed", CHANGED_CURE)


def _is_same(place: Place, sha256: str) -> bool:
    file = film_file(place.file)
    try:
        now = file.stat()
        if (now.st_size, now.st_mtime_ns) == (place.bytes, place.modified):
            return True
        return now.st_size == place.bytes and hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    except OSError:
        return False
