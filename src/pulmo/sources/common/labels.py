"""A CSV that names the films of a folder: path and label, and patient and split where they are known."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pulmo.base.errors import UserError
from pulmo.films.archive_names import leaves_folder
from pulmo.films.archives import Entry
from pulmo.films.names import IMAGE_SUFFIXES
from pulmo.films.rows.labels import CLASS_NAMES, LABELS, SPLIT_NAMES
from pulmo.films.rows.table import Listed
from pulmo.sources.common.layout import choose_films, normal_form
from pulmo.sources.common.tables import read_table

REQUIRED, OPTIONAL = ("path", "label"), ("patient", "split")
_BETWEEN_FINDINGS = "[|,;]"
_PARTIAL = "data.folder.partial: true"


@dataclass(frozen=True)
class Reading:
    """The settings for reading a CSV; params.yaml explains each field below data.folder."""

    columns: Mapping[str, str | int] = field(default_factory=dict)  # path, label, patient, split -> name in the CSV
    label_values: Mapping[str, str] = field(default_factory=dict)  # value in small letters -> NORMAL or PNEUMONIA
    partial: bool = False

    @property
    def has_header(self) -> bool:
        """False where columns are numbers, which those have that no first line names."""
        return not any(isinstance(name, int) for name in self.columns.values())


class _Row(NamedTuple):
    line: int
    cells: dict[str, str]  # path, label, patient and split
    others: dict[str, str]  # by the names of their columns


def read_paths(table: Path, reading: Reading) -> list[str]:
    """The paths that the CSV names, as it writes them."""
    return [row.cells["path"] for row in _read_rows(table, reading)]


def read_labels(table: Path, entries: Mapping[str, Entry], reading: Reading) -> dict[str, Listed]:
    """The film that the CSV makes of each file among `entries` (by its path relative to the source's root).

    A path in the CSV may lack the folders above it, have one too many in front, lack the suffix, or have another, as
    long as it fits one file alone. Where no column tells the split, a folder named train, val or test does. A row
    without film, a film without row and a label that stands for neither class are left out and counted if
    `reading.partial`, else UserErrors that name file and line. Other columns are kept with the film.
    """
    films = choose_films(entries, "the source")
    files = _Files(films, list(entries))
    listed: dict[str, Listed] = {}
    rows: dict[str, _Row] = {}
    left_out: Counter[str] = Counter()
    for row in _read_rows(table, reading):
        where = f"{table}, line {row.line}"
        name = files.find(row.cells["path"], where)
        if name is None and not reading.partial:
            raise _no_file(row.cells["path"], films, where)
        label = read_label(row.cells["label"], reading.label_values)
        if not label and not reading.partial:
            raise _no_label(row.cells["label"], where)
        if name is None or not label:
            left_out["rows without film" if name is None else "rows of another label"] += 1
            continue
        film = _film(row, name, label, where)
        if name in listed:
            _refuse_repetition(row, film, rows[name], listed[name], where)
            film = replace(film, others=_join(listed[name].others, film.others))
        rows[name], listed[name] = row, film
    if not listed:
        raise UserError(f"{table} names no film", "give one line per film below the header path,label")
    missing = [name for name in films if name not in listed]
    if missing and not reading.partial:
        more = f" and {len(missing) - 1:,} more images" if len(missing) > 1 else ""
        raise UserError(
            f"{table} has no line for {missing[0]}{more}",
            f"add lines or remove the files, or set {_PARTIAL} to leave them out",
        )
    left_out["films without row"] = len(missing)
    if counts := ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count):
        print(f"left out by {table.name}: {counts}")
    _require_all_or_none(table, list(listed.values()), reading.partial)
    return listed


def read_label(value: str, meanings: Mapping[str, str]) -> str:
    """NORMAL or PNEUMONIA for a value of the column label, or an empty text.

    A value of several findings (Edema|Pneumonia, or as Python writes lists) is PNEUMONIA if one of them is, and NORMAL
    if all are. A finding below another (Pneumonia/Viral/COVID-19) means what that one means, unless it has a meaning of
    its own.
    """
    known = CLASS_NAMES | {str(key).strip().lower(): label for key, label in meanings.items()}
    value = value.lower()
    findings = [value] if value in known else re.split(_BETWEEN_FINDINGS, value.strip("[]"))
    labels = {_meaning(finding.strip(" '\""), known) for finding in findings}
    return LABELS[1] if LABELS[1] in labels else LABELS[0] if labels == {LABELS[0]} else ""


def _meaning(finding: str, known: Mapping[str, str]) -> str:
    while finding:
        if finding in known:
            return known[finding]
        finding = finding.rpartition("/")[0].strip() if "/" in finding else _whole_number(finding, known)
    return ""


def _whole_number(finding: str, known: Mapping[str, str]) -> str:
    """The key of `known` that is the same number as `finding` (1 for 1.0), or an empty text."""
    try:
        whole = f"{float(finding):g}"
    except ValueError:
        return ""
    return whole if whole in known and whole != finding else ""


class _Files:
    """The files of a source by the ways in which a CSV may name them."""

    def __init__(self, films: Sequence[str], names: Sequence[str]) -> None:
        self._films = set(films)
        self._exact = {normal_form(name): name for name in names}
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            path = PurePosixPath(normal_form(name))
            self._by_base[path.name].append(name)
            self._by_stem[path.stem].append(name)

    def find(self, written: str, where: str) -> str | None:
        """The one file that a path of the CSV stands for; None where there is none, UserError where there are several.

        Of several, films come before masks and other files.
        """
        posix = written.replace("\\", "/")
        if leaves_folder(posix):
            raise UserError(f"{where}: {written!r} leaves the source's folder", "write paths relative to it")
        path = normal_form(str(PurePosixPath(posix)))
        if path in self._exact:
            return self._exact[path]
        base = path.rpartition("/")[2]
        fitting = [name for name in self._by_base[base] if _same_end(path, normal_form(name))]
        # without suffix, or with the one that the film had before somebody converted it
        bare = _without_suffix(path)
        for end in (path, bare):
            fitting = fitting or [
                name
                for name in self._by_stem[end.rpartition("/")[2]]
                if _same_end(end, _without_suffix(normal_form(name), any_suffix=True))
            ]
        fitting = [name for name in fitting if name in self._films] or fitting
        if len(fitting) > 1:
            raise UserError(
                f"{where}: {written!r} may be {fitting[0]} or {fitting[1]}", "write more of the folders in the CSV"
            )
        return fitting[0] if fitting else None


def _without_suffix(path: str, any_suffix: bool = False) -> str:
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if any_suffix or suffix.lower() in IMAGE_SUFFIXES else path


def _same_end(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _read_rows(table: Path, reading: Reading) -> list[_Row]:
    columns = {column: reading.columns.get(column, column) for column in (*REQUIRED, *OPTIONAL)}
    names = {column: str(name).strip().lower() for column, name in columns.items()}
    header, rows = read_table(table, names.values(), reading.has_header)
    for column, name in names.items():
        if header.count(name) > 1 or (name not in header and (column in REQUIRED or name != column)):
            raise _no_column(table, header, name, reading)
    places = {column: header.index(name) for column, name in names.items() if name in header}
    others = {name: place for place, name in enumerate(header) if name and place not in places.values()}
    return [
        _Row(
            line,
            {column: cells[place] for column, place in places.items()},
            {name: cells[place] for name, place in others.items()},
        )
        for line, cells in rows
    ]


def _no_column(table: Path, header: Sequence[str], name: str, reading: Reading) -> UserError:
    if not reading.has_header:
        return UserError(
            f"{table}: the first line has {len(header)} values, of which {name!r} is none",
            "without a header data.folder.columns are numbers from 1, those of path and label at least",
        )
    return UserError(
        f"{table}: the first line is {','.join(header)[:200]!r}",
        "it must name the columns path,label[,patient][,split] once, or data.folder.columns other names for them, or "
        f"numbers where the table has no header; {name!r} is missing or there twice",
    )


def _film(row: _Row, name: str, label: str, where: str) -> Listed:
    path = normal_form(name)
    folders = [part.lower() for part in path.split("/")[:-1]]
    split = row.cells.get("split", next((part for part in folders if part in SPLIT_NAMES), "")).lower()
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{where}: split {split!r} is neither train, val nor test", "write train, val or test")
    return Listed(path, label, SPLIT_NAMES.get(split, ""), row.cells.get("patient", ""), others=row.others)


def _refuse_repetition(row: _Row, film: Listed, before: _Row, listed: Listed, where: str) -> None:
    """UserError unless two rows of a film agree on it and differ elsewhere, as rows of one box each do."""
    if film != listed or row.others == before.others:
        raise UserError(f"{where}: {film.path!r} is already named in line {before.line}", "remove one")


def _join(before: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    """The other columns of a film with several rows; where they differ, one value after the other."""
    return {name: value if value == before[name] else f"{before[name]}|{value}" for name, value in here.items()}


def _no_file(path: str, films: Sequence[str], where: str) -> UserError:
    example = f"; the source holds for example {films[0]!r}" if films else ""
    return UserError(
        f"{where}: there is no file {path!r}",
        f"correct the path or remove the line{example}; {_PARTIAL} leaves such lines out",
    )


def _no_label(value: str, where: str) -> UserError:
    return UserError(
        f"{where}: label {value!r} is neither NORMAL nor PNEUMONIA",
        f"say which of them it means in data.folder.label_values, or set {_PARTIAL} to leave such films out",
    )


def _require_all_or_none(table: Path, films: Sequence[Listed], partial: bool) -> None:
    for column, attribute in (("split", "source_split"), ("patient", "patient")):
        without = [film.path for film in films if not getattr(film, attribute)]
        if without and len(without) < len(films) and not (partial and column == "patient"):
            raise UserError(f"{table}: {without[0]} has no {column} while others have", "give every film one, or none")
