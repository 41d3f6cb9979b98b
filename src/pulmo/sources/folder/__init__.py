"""Films of one's own: a folder or an archive in split/class/ or class/ layout, or any layout with a CSV of labels."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.films.table import Listed
from pulmo.sources.common.archives import ARCHIVE_SUFFIXES, is_archive, list_members, unpack
from pulmo.sources.common.labels import read_labels
from pulmo.sources.common.layout import check_space, check_targets, find_films, is_film, list_folder


def fetch(raw: Path, path: Path, labels: Path | None = None) -> tuple[list[Listed], dict[str, str]]:
    """Fill the empty folder `raw` with copies of the films at `path`; the films and where they come from.

    Without `labels` the folder names tell split and class. With it they keep their place, and the CSV tells.
    """
    sizes = _sizes(path)
    if labels is None:
        films = {film.name: Listed(film.target, film.label, film.split) for film in find_films(sizes, str(path))}
    else:
        films = read_labels(labels, sizes)
        check_targets({name: film.path for name, film in films.items()})
    if others := sum(not is_film(name) and name not in films for name in sizes):
        print(f"{others:,} files of {path} that are no images are left out")
    check_space(raw, sum(sizes[name] for name in films))
    targets = {name: raw / film.path for name, film in films.items()}
    if path.is_dir():
        _copy(path, targets)
    else:
        unpack(path, targets)
    origin = {"source": "folder", "name": path.name}
    if not path.is_dir():
        origin["sha256"] = sha256_file(path)
    return list(films.values()), origin


def _sizes(path: Path) -> dict[str, int]:
    if path.is_dir():
        return list_folder(path)
    if not path.exists():
        raise UserError(f"{path} not found", "correct data.folder.path in params.yaml (relative to the project's root)")
    if not is_archive(path):
        raise UserError(
            f"{path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})",
            "name one of these in data.folder.path",
        )
    return list_members(path)


def _copy(folder: Path, targets: Mapping[str, Path]) -> None:
    # Never hard links: DVC makes what it tracks read-only, and these are the user's own files.
    for name, target in tqdm(targets.items(), desc="copy", unit="film", disable=None):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)
