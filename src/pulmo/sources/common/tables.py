"""Text of a CSV as spreadsheets and publishers write it: UTF-8 or UTF-16, commas, semicolons or tabs."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from pulmo.base.errors import UserError

Row = tuple[int, list[str]]  # line of the file, cells without surrounding blanks


def read_table(table: Path, wanted: Collection[str]) -> tuple[list[str], list[Row]]:
    """The names of the columns in small letters, and every row that is not empty.

    The separator is the one that finds the columns `wanted`, else the one that makes the most columns.
    """
    text = _decode(table)
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's own first line
    text = text[declared.end() :] if declared else text
    header_line = io.StringIO(text, newline="").readline()
    separators = [declared[1]] if declared else [",", ";", "\t"]
    headers = {
        separator: set(_names(next(csv.reader([header_line], delimiter=separator), []))) for separator in separators
    }
    separator = max(separators, key=lambda one: (len(headers[one] & set(wanted)), len(headers[one])))
    try:
        header, rows = _split(text, separator)
    except csv.Error as error:
        raise UserError(f"{table} is not a readable CSV ({error})", "save it as CSV UTF-8") from None
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{table}, line {line}: {len(cells)} values for {len(header)} columns",
                "give every line one value a column; one with a comma in it needs quotes",
            )
    return header, [(line + bool(declared), cells) for line, cells in rows]


def _decode(table: Path) -> str:
    try:
        content = table.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{table} not found", "correct data.folder.labels in params.yaml (relative to the project's root)"
        ) from None
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{table} is not UTF-8 text", "save it as CSV UTF-8") from None


def _split(text: str, separator: str) -> tuple[list[str], list[Row]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header = _names(next(reader, []))
    rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if "".join(cells).strip()]
    return header, rows


def _names(cells: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in cells]
