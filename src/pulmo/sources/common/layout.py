"""The layout of films in folders: split/class/name or class/name, below any number of wrapping folders."""

import os
import shutil
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pulmo.base.errors import UserError
from pulmo.films.archive_names import MOST_FOLDERS, is_hidden, name_problem
from pulmo.films.archives import Entry
from pulmo.films.contents import HEAD, MOST_BYTES, TooLarge, is_film, is_mask
from pulmo.films.names import IMAGE_SUFFIXES
from pulmo.films.rows.labels import CLASS_NAMES, SPLIT_NAMES
from pulmo.films.rows.table import Listed

_EXPECTED = "lay them out as split/class/ or class/, with split train, val or test and class NORMAL or PNEUMONIA"
_OR_CSV = (
    "or say in data.folder.label_values which class other folders mean, or name a CSV with the labels "
    "(data.folder.labels)"
)


@dataclass(frozen=True)
class Placed:
    """A film found in a layout."""

    name: str  # where it was found, relative to the source's root
    split: str  # train, val, test, or empty where the layout has no splits
    label: str  # NORMAL or PNEUMONIA
    inner: str  # its path below the class folder, with that folder where it has another name than its class

    @property
    def target(self) -> str:
        """Its path below data/raw."""
        return "/".join(part for part in (self.split, self.label, normal_form(self.inner)) if part)


def normal_form(name: str) -> str:
    """The name with accents in composed form, so that names from macOS, Linux and a CSV compare equal."""
    return unicodedata.normalize("NFC", name)


def list_folder(root: Path, follow_links: bool = False) -> dict[str, Entry]:
    """Every visible file below `root` by its path with forward slashes.

    Links that stay in `root` are followed, but for those that lead back to a folder they lie in. One that leads out of
    it is a UserError unless `follow_links`, for what it stands for would be copied, and perhaps published.
    """
    entries: dict[str, Entry] = {}
    top = root.resolve()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        here, relative = Path(folder).resolve(), Path(folder).relative_to(root)
        if len(relative.parts) > MOST_FOLDERS:
            raise UserError(
                f"{root}: {'/'.join(relative.parts[:3])} is more than {MOST_FOLDERS} folders deep",
                "name the folder that holds the films, or move them further up",
            )
        visible = [name for name in folders if not is_hidden(name)]
        folders[:] = [name for name in visible if not here.is_relative_to((here / name).resolve())]
        for name in folders if not follow_links else []:
            _refuse_link_out(here / name, top)
        for name in files:
            path = (relative / name).as_posix()
            if not is_hidden(name) and (entry := _inspect(root / path, path)):
                if entry.is_film and not follow_links:
                    _refuse_link_out(here / name, top)
                entries[path] = entry
    return entries


def _inspect(file: Path, path: str) -> Entry | None:
    """Size and kind of a file; None for what is none and is not called a film."""
    if not file.is_file():
        if is_film(path, b""):
            raise UserError(f"{file!s} is a broken link or no regular file", "remove it")
        return None
    with file.open("rb") as opened:
        film = is_film(path, opened.read(HEAD))
    if film and (problem := name_problem(path)):
        raise UserError(f"{file.parent}: {path!a} {problem}", "rename it")
    if film and file.stat().st_size > MOST_BYTES:
        raise TooLarge(str(file))
    return Entry(file.stat().st_size, film)


def _refuse_link_out(file: Path, top: Path) -> None:
    if file.is_symlink() and not file.resolve().is_relative_to(top):
        raise UserError(
            f"{file} is a link that leads out of {top}",
            "put the films themselves there (cp -rL), or set data.folder.follow_links: true",
        )


def choose_films(entries: Mapping[str, Entry], where: str) -> list[str]:
    """The names of all films, sorted; how many masks lie beside them and are left out is printed."""
    films = sorted(name for name, entry in entries.items() if entry.is_film)
    levels = zip(*map(_folders, films), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    masks = [name for name in films if is_mask(name, shared)]
    if not masks or len(masks) == len(films):
        return films
    print(f"{len(masks):,} masks in {where} are left out, {masks[0]} for one")
    return sorted(set(films) - set(masks))


def find_films(
    entries: Mapping[str, Entry], where: str, meanings: Mapping[str, str] | None = None, partial: bool = False
) -> list[Placed]:
    """Place every film of `entries`; `where` names the source in errors, all of them UserErrors.

    `meanings` says which class folders of other names stand for. The shallowest split or class folders count, so that
    a second copy of the tree deeper down is left alone. How many films lie outside of them is printed; a film whose
    split or class cannot be told is an error, or one of those if `partial`.
    """
    classes = CLASS_NAMES | {str(name).strip().lower(): label for name, label in (meanings or {}).items()}
    films = choose_films(entries, where)
    if not films:
        raise UserError(
            f"{where} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})",
            "name the folder or archive that holds the films",
        )
    starts = {name: start for name in films if (start := _start(_folders(name), classes)) is not None}
    if not starts:
        raise UserError(
            f"{where}: no film is in a NORMAL or PNEUMONIA folder, {films[0]} for one", f"{_EXPECTED}; {_OR_CSV}"
        )
    depth = min(starts.values())
    bases = sorted({_folders(name)[:depth] for name, start in starts.items() if start == depth})
    if len(bases) > 1:
        both = " and ".join("/".join(base) for base in bases[:2])
        raise UserError(f"{where} holds several sets of films, {both}", f"name one of them as the source; {_EXPECTED}")
    layout = _Layout(where, depth, classes, partial)
    placed = [_place(name, layout) for name in films if _folders(name)[:depth] == bases[0]]
    inside = [film for film in placed if film]
    if len({bool(film.split) for film in inside}) > 1:
        raise UserError(f"{where} has split folders and class folders side by side", _EXPECTED)
    check_targets({film.name: film.target for film in inside})
    if outside := len(films) - len(inside):
        print(f"{outside:,} images outside the split and class folders of {where} are left out")
    return inside


def check_counts(listed: Iterable[Listed], expected: Mapping[str, int], cure: str) -> None:
    """UserError unless each folder (train, or train/NORMAL) holds as many films as is known of it."""
    paths = [film.path for film in listed]
    counts = {folder: sum(path.startswith(f"{folder}/") for path in paths) for folder in expected}
    wrong = [
        f"{name}: expected {count:,}, found {counts[name]:,}"
        for name, count in expected.items()
        if counts[name] != count
    ]
    if wrong:
        raise UserError(f"the dataset is not the published one ({'; '.join(wrong)})", cure)


def check_targets(targets: Mapping[str, str]) -> None:
    """UserError if two sources (keys) would become the same file below data/raw (values)."""
    taken: dict[str, str] = {}
    for name, target in targets.items():
        if target in taken:
            raise UserError(f"{taken[target]} and {name} would both become data/raw/{target}", "rename one of them")
        taken[target] = name


def check_space(folder: Path, needed: int) -> None:
    """UserError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the films need {needed / 1e9:.1f} GB and their disk has {free / 1e9:.1f} GB free",
            "free some space, or move the project to a larger disk",
        )


def _raise(error: OSError) -> None:
    raise error


def _folders(name: str) -> tuple[str, ...]:
    return tuple(name.split("/")[:-1])


@dataclass(frozen=True)
class _Layout:
    where: str  # the source
    depth: int  # folders above the first split or class folder
    classes: Mapping[str, str]  # folders in small letters, and the class that each means
    partial: bool  # films whose split or class cannot be told are left out


def _start(folders: tuple[str, ...], classes: Mapping[str, str]) -> int | None:
    """The index of the first split/class or class folder; None where there is none."""
    lower = [folder.lower() for folder in folders]
    for index, folder in enumerate(lower):
        below = lower[index + 1] if index + 1 < len(lower) else ""
        if folder in classes or (folder in SPLIT_NAMES and below in classes):
            return index
    return None


def _place(name: str, layout: _Layout) -> Placed | None:
    """The film at `name`; None if it lies in a deeper copy or in no folder."""
    classes, parts = layout.classes, name.split("/")[layout.depth :]
    lower = [part.lower() for part in parts[:-1]]
    split = SPLIT_NAMES.get(lower[0], "") if lower else ""
    below = lower[1:] if split else lower
    if below and below[0] in classes:
        label, own = classes[below[0]], below[0] in CLASS_NAMES
        inner = [part for part in below[1:] if part in CLASS_NAMES or part in SPLIT_NAMES]
        if inner := inner or [part for part in below[1:] if classes.get(part, label) != label]:
            raise UserError(f"{layout.where}: {name} lies in a folder {inner[0]} below its class folder", _EXPECTED)
        return Placed(name, split, label, "/".join(parts[len(lower) - len(below) + own :]))
    copy_below = _start(tuple(lower[1:]), classes) is not None and not (len(lower) > 1 and lower[1] in classes)
    if not lower or layout.partial or (not split and copy_below):
        return None
    raise UserError(f"{layout.where}: cannot tell split and class of {name}", f"{_EXPECTED}; {_OR_CSV}")
