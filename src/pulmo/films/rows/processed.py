"""The array of films that preprocess wrote, and the split, label and patient of each of its rows."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.films.rows.labels import LABELS
from pulmo.films.rows.table import check_values, read_columns, read_splits

_AGAIN = "run `dvc repro preprocess`"


def open_images(path: Path) -> np.ndarray:
    """The preprocessed films, uint8 (N, S, S), memory-mapped; any other file is a UserError that names it."""
    try:
        images: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} not found", _AGAIN) from None
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).partition(". ")[0]  # what NumPy adds is advice to trust the file
        raise UserError(f"{path} is not a whole NumPy array ({reason})", _AGAIN) from error
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise UserError(
            f"{path} holds {images.dtype} {images.shape} instead of uint8 (films, size, size)",
            _AGAIN,
        )
    return images


def read_rows(splits: Path, index: Path, split: str) -> pd.DataFrame:
    """The films of one split: the columns of splits.csv, `row` of the image array and `target` (1 = PNEUMONIA).

    The tables are held against each other and against images.npy and rejected.csv beside the index: each film has a row
    or was rejected, each row a film. What does not fit, or a split without films, is a UserError.
    """
    table, rows = read_splits(splits), read_index(index)
    rejected = read_columns(index.with_name("rejected.csv"), {"path": str, "reason": str}, _AGAIN)
    lost = table.path[~table.path.isin(rows.path) & ~table.path.isin(rejected.path)]
    if len(lost):
        raise UserError(f"{index} has no row for {lost.iloc[0]}, which was not rejected either", _AGAIN)
    table = table[table["split"] == split].merge(rows, on="path", validate="one_to_one")
    if table.empty:
        raise UserError(f"{splits} has no film in split {split}", "check the section split of params.yaml")
    table["target"] = (table["label"] == LABELS[1]).astype(np.int64)
    return table.sort_values("path", ignore_index=True)


def read_index(index: Path) -> pd.DataFrame:
    """The columns row and path of index.csv, which numbers the films of images.npy beside it; else a UserError."""
    rows = read_columns(index, {"row": int, "path": str}, _AGAIN)
    films = len(open_images(index.with_name("images.npy")))
    if len(rows) != films:
        raise UserError(f"{index} lists {len(rows):,} films, but images.npy holds {films:,}", _AGAIN)
    check_values(index, rows, "row", rows.row == range(films), _AGAIN)
    check_values(index, rows, "path", (rows.path != "") & ~rows.path.duplicated(), _AGAIN)
    return rows


def hash_data(*files: Path) -> str:
    """One hex SHA-256 for the contents of several files."""
    return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def summarise_splits(images: np.ndarray, *tables: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """`summarise_films` of tables of one split each, by the name of the split."""
    return {str(table["split"].iloc[0]): summarise_films(images, table) for table in tables}


def summarise_films(images: np.ndarray, films: pd.DataFrame) -> dict[str, Any]:
    """Counts of the films of a split, their patients and those with PNEUMONIA, and `digest`: 16 hex digits that follow
    from paths, labels, patients and pixels, so that equal digests mean that the same films were seen."""
    table = films[["path", "label", "patient"]].to_csv(index=False, lineterminator="\n")
    digest = hashlib.sha256(table.encode())
    for row in films["row"]:
        digest.update(images[row].tobytes())
    counts = {"films": len(films), "patients": films["patient"].nunique(), "pneumonia": int(films["target"].sum())}
    return {"digest": digest.hexdigest()[:16], **counts}
