"""Films of one's own: a folder or an archive in split/class/ or class/ layout, or any layout with a CSV of labels."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.films.archives import ARCHIVE_SUFFIXES, Entry, find_encoding, is_archive, list_members, unpack
from pulmo.films.places import write_places
from pulmo.films.remote import FilmFile, Remote
from pulmo.films.rows.table import Listed
from pulmo.sources.common.labels import Reading, read_labels, read_paths
from pulmo.sources.common.layout import check_space, check_targets, find_films, list_folder
from pulmo.sources.common.remote import list_remote


def fetch(
    raw: Path,
    path: FilmFile,
    labels: Path | None = None,
    follow_links: bool = False,
    in_place: bool = False,
    **how: Any,
) -> tuple[list[Listed], dict[str, str]]:
    """Fill the empty folder `raw` with copies of the films at `path`, or `in_place` with a list of where they lie; the
    films and where they come from. What lies behind an address is read in place alone.

    Without `labels` the folder names tell split and class. With it they keep their place, and the CSV tells. `how` are
    the fields of Reading, by which either is read.
    """
    _check_place(path, in_place)
    reading = Reading(**how)
    encoding = _name_encoding(path, labels, reading)
    entries = _list_files(path, encoding, follow_links)
    if labels is None:
        placed = find_films(entries, str(path), reading.label_values, reading.partial)
        films = {film.name: Listed(film.target, film.label, film.split) for film in placed}
    else:
        films = read_labels(labels, entries, reading)
        check_targets({name: film.path for name, film in films.items()})
    if others := sorted(name for name, entry in entries.items() if not entry.is_film and name not in films):
        print(f"{len(others):,} files of {path} that are no images are left out, {others[0]!a} for one")
    if in_place or isinstance(path, Remote):
        write_places(raw, {film.path: path / name for name, film in films.items()})
    else:
        check_space(raw, sum(entries[name].size for name in films))
        _fill(path, {name: raw / film.path for name, film in films.items()}, encoding)
    origin = {"source": "folder", "name": path.name}
    if isinstance(path, Path) and path.is_file():
        origin["sha256"] = sha256_file(path)
    return list(films.values()), origin


def _check_place(path: FilmFile, in_place: bool) -> None:
    if isinstance(path, Remote) and not in_place:
        raise UserError(f"{path} is read in place alone", "set data.folder.in_place: true")
    if isinstance(path, Path) and in_place and path.is_file():
        raise UserError(
            f"{path} is no folder, so its films cannot be read in place",
            "unpack it, or set data.folder.in_place: false",
        )


def _name_encoding(path: FilmFile, labels: Path | None, reading: Reading) -> str:
    if labels is None or isinstance(path, Remote) or not path.is_file() or not is_archive(path):
        return ""
    return find_encoding(path, {name.replace("\\", "/").rpartition("/")[2] for name in read_paths(labels, reading)})


def _list_files(path: FilmFile, encoding: str, follow_links: bool) -> dict[str, Entry]:
    if isinstance(path, Remote):
        return list_remote(path)
    if path.is_dir():
        return list_folder(path, follow_links)
    if not path.exists():
        raise UserError(f"{path} not found", "correct data.folder.path in params.yaml (relative to the project's root)")
    if not is_archive(path):
        raise UserError(
            f"{path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})",
            "name one of these in data.folder.path",
        )
    return list_members(path, encoding)


def _fill(path: Path, targets: Mapping[str, Path], encoding: str) -> None:
    if not path.is_dir():
        unpack(path, targets, encoding)
        return
    # Never hard links: DVC makes what it tracks read-only, and these are the user's own files.
    for name, target in tqdm(targets.items(), desc="copy", unit="film", disable=None):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, target)
