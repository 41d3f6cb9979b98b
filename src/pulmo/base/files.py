"""Files that are either whole or absent: every writer here goes through a temporary name and a rename."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # its import takes longer than an answer
    import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.places import alone_in, own_place

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # a spreadsheet runs such a cell, unless ' stands before it
SEAL_BYTES = 32


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is flushed to disk and renamed to `path`, on any error removed.

    Two that write the same file at once do not see each other, and the last to end leaves its own.
    """
    with own_place(path) as temporary:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces `path`, on any error it is removed.

    The earlier folder stays, under another name, until the new one stands. What a kill leaves of it the next call
    puts back.
    """
    with own_place(path) as temporary:
        earlier = path.with_name(f".{path.name}.earlier")
        temporary.mkdir()
        with alone_in(path.parent):
            _settle(path, earlier)
        yield temporary
        with alone_in(path.parent):
            _settle(path, earlier)
            try:
                if path.is_dir():
                    path.replace(earlier)
                temporary.replace(path)
            finally:
                _settle(path, earlier)


def _settle(path: Path, earlier: Path) -> None:
    """Put the `earlier` folder back where no newer one stands at `path`, else remove it."""
    if earlier.is_dir():
        if path.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            earlier.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read and diff: indented, NumPy scalars as numbers, NaN and infinity as null."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is damaged is a UserError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no text at all, or brackets without end
        raise UserError(f"{path} is not valid JSON ({error})", "delete it and run `dvc repro` again") from error


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index; floats keep every digit, so that the same table gives the same bytes.

    Texts are written as `quote` gives them, which `unquote` takes back.
    """
    with whole_file(path) as temporary:
        quoted = _map_texts(table, quote)
        quoted.to_csv(temporary, index=False, lineterminator="\n")


def quote(text: str) -> str:
    """A text as a cell of a CSV: a ' stands before what a spreadsheet would run as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unquote(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table that was read from what `write_csv` wrote, with the texts as they were."""
    return _map_texts(table, lambda text: text[1:] if text.startswith("'") and _FORMULA.match(text) else text)


def _map_texts(table: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    texts = {str(name): column for name, column in table.items() if column.dtype.kind not in "biufc"}

    def change_cell(cell: Any) -> Any:
        return change(cell) if isinstance(cell, str) else cell

    return table.assign(**{name: column.map(change_cell).astype(column.dtype) for name, column in texts.items()})


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Append the SHA-256 of a file's bytes to it, so that `is_sealed` sees whatever changes them later."""
    digest = bytes.fromhex(sha256_file(path))
    with path.open("ab") as file:
        file.write(digest)


def is_sealed(path: Path) -> bool:
    """True where a file ends in the SHA-256 of all that stands before it."""
    left, digest = path.stat().st_size - SEAL_BYTES, hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, 2**20))):
            digest.update(part)
            left -= len(part)
        return left == 0 and file.read() == digest.digest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
