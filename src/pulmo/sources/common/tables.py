"""Text of a CSV as spreadsheets and publishers write it: UTF-8 or UTF-16; commas, semicolons, tabs or blanks."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection
from pathlib import Path

from pulmo.base.errors import UserError

Row = tuple[int, list[str]]  # line of the file, cells without surrounding blanks

_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # of Excel and LibreOffice
_GZIP = b"\x1f\x8b"
_SEPARATORS = (",", ";", "\t", " ")


def read_table(table: Path, wanted: Collection[str], header: bool = True) -> tuple[list[str], list[Row]]:
    """The names of the columns in small letters (numbers from 1 without a header), and every row that is not empty.

    The separator is the one that finds the columns `wanted`, else the one that makes the most columns.
    """
    text = _decode(table)
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's own first line
    text = text[declared.end() :] if declared else text
    try:
        rows = _split(text, declared[1] if declared else _find_separator(text, wanted))
    except csv.Error as error:
        raise UserError(f"{table} is not a readable CSV ({error})", "save it as CSV UTF-8") from None
    first = rows[0][1] if rows else []
    names = [name.lower() for name in first] if header else [str(place) for place in range(1, len(first) + 1)]
    rows = rows[1:] if header else rows
    for line, cells in rows:
        if len(cells) != len(names):
            raise UserError(
                f"{table}, line {line + bool(declared)}: {len(cells)} values for {len(names)} columns",
                "give every line one value a column; one with a comma in it needs quotes",
            )
    return names, [(line + bool(declared), cells) for line, cells in rows]


def _find_separator(text: str, wanted: Collection[str]) -> str:
    """Blanks separate where nothing else does, for names have blanks in them."""
    line = io.StringIO(text.lstrip("\r\n"), newline="").readline()
    names = {one: [cell.strip().lower() for cell in next(csv.reader([line], delimiter=one), [])] for one in _SEPARATORS}
    return max(
        names, key=lambda one: (len({*names[one]} & {*wanted}), one != " " and len(names[one]) > 1, len(names[one]))
    )


def _decode(table: Path) -> str:
    try:
        content = table.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{table} not found", "correct data.folder.labels in params.yaml (relative to the project's root)"
        ) from None
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{table} is damaged or cut short ({error})", "copy or download it again") from None
    if content.startswith(_SPREADSHEETS):
        raise UserError(f"{table} is a spreadsheet, no CSV", "save it as CSV UTF-8")
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{table} is not UTF-8 text", "save it as CSV UTF-8") from None


def _split(text: str, separator: str) -> list[Row]:
    """Lines that are not empty; several blanks between two values are one."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    rows = [(line, [cell for cell in cells if cell or separator != " "]) for line, cells in rows]
    return [(line, cells) for line, cells in rows if "".join(cells)]
