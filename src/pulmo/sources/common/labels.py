"""A CSV that names the films of a folder: columns path and label, and patient and split where they are known."""

import csv
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pulmo.base.errors import UserError
from pulmo.films.labels import CLASS_NAMES, SPLIT_NAMES
from pulmo.films.table import Listed
from pulmo.sources.common.layout import is_film, normal_form

REQUIRED, OPTIONAL = {"path", "label"}, {"patient", "split"}


def read_labels(table: Path, names: Collection[str]) -> dict[str, Listed]:
    """The film that the CSV makes of each file among `names` (paths relative to the source's root).

    Paths in the CSV are relative to that root. Where it has no column split, a folder named train, val or test tells.
    Every image needs a row and every row an image; what is wrong is a UserError that names the file and the line.
    """
    by_name = {normal_form(name): name for name in names}
    films: dict[str, Listed] = {}
    lines: dict[str, int] = {}
    for line, cells in _rows(table):
        where = f"{table}, line {line}"
        path = _path(cells["path"], where)
        if path in lines:
            raise UserError(f"{where}: {path!r} is already named in line {lines[path]}", "remove one")
        if path not in by_name:
            example = f"; the source holds for example {min(by_name)!r}" if by_name else ""
            raise UserError(f"{where}: there is no file {path!r}", f"correct the path or remove the line{example}")
        lines[path] = line
        films[by_name[path]] = _film(cells, path, where)
    if not films:
        raise UserError(f"{table} names no film", "give one line per film below the header path,label")
    if missing := sorted(name for name in names if is_film(name) and name not in films):
        more = f" and {len(missing) - 1:,} more images" if len(missing) > 1 else ""
        raise UserError(f"{table} has no line for {missing[0]}{more}", "add lines or remove the files")
    for column, field in (("split", "source_split"), ("patient", "patient")):
        without = [film.path for film in films.values() if not getattr(film, field)]
        if without and len(without) < len(films):
            raise UserError(f"{table}: {without[0]} has no {column} while others have", "give every film one, or none")
    return films


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells by column of every row that is not empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if "".join(cells).strip()]
    except FileNotFoundError:
        raise UserError(
            f"{table} not found", "correct data.folder.labels in params.yaml (relative to the project's root)"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{table} is not UTF-8 text", "save it as CSV UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{table} is not a readable CSV ({error})", "save it as CSV UTF-8") from None
    columns = set(header)
    if not REQUIRED <= columns <= REQUIRED | OPTIONAL or len(columns) < len(header):
        raise UserError(
            f"{table}: the first line is {','.join(header)!r}",
            "it must name the columns path,label[,patient][,split], separated by commas, and no others",
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{table}, line {line}: {len(cells)} values for {len(header)} columns",
                "give every line as many values as the header has columns",
            )
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _path(written: str, where: str) -> str:
    path = PurePosixPath(written.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or written[1:2] == ":":
        raise UserError(f"{where}: {written!r} leaves the source's folder", "write paths relative to it")
    return normal_form(str(path))


def _film(cells: dict[str, str], path: str, where: str) -> Listed:
    label = CLASS_NAMES.get(cells["label"].lower())
    if label is None:
        raise UserError(
            f"{where}: label {cells['label']!r} is neither NORMAL nor PNEUMONIA", "write NORMAL or PNEUMONIA"
        )
    folders = [part.lower() for part in path.split("/")[:-1]]
    split = cells.get("split", next((part for part in folders if part in SPLIT_NAMES), "")).lower()
    if split and split not in SPLIT_NAMES:
        raise UserError(f"{where}: split {split!r} is neither train, val nor test", "write train, val or test")
    return Listed(path, label, SPLIT_NAMES.get(split, ""), cells.get("patient", ""))
