"""Which rows of the image array belong to which split."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file
from pulmo.films.labels import LABELS


def open_images(path: Path) -> np.ndarray:
    """The preprocessed films, uint8 (N, S, S), memory-mapped; any other file is a UserError that names it."""
    try:
        images: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} not found", "run `dvc repro preprocess`") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is not a whole NumPy array ({error})", "run `dvc repro preprocess`") from error
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise UserError(
            f"{path} holds {images.dtype} {images.shape} instead of uint8 (films, size, size)",
            "run `dvc repro preprocess`",
        )
    return images


def read_rows(splits: Path, index: Path, split: str) -> pd.DataFrame:
    """The films of one split: the columns of splits.csv, `row` of the image array and `target` (1 = PNEUMONIA).

    Films that preprocess rejected have no row and are left out. UserError where nothing is left.
    """
    table = pd.read_csv(splits, dtype=str, keep_default_na=False)
    rows = pd.read_csv(index, dtype={"row": np.int64, "path": str}, keep_default_na=False)
    table = table[table["split"] == split].merge(rows, on="path", validate="one_to_one")
    if table.empty:
        raise UserError(f"{splits} has no film in split {split}", "check the section split of params.yaml")
    table["target"] = (table["label"] == LABELS[1]).astype(np.int64)
    return table.sort_values("path", ignore_index=True)


def hash_data(*files: Path) -> str:
    """One hex SHA-256 for the contents of several files."""
    return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()


def describe_films(images: np.ndarray, films: pd.DataFrame) -> dict[str, Any]:
    """Counts of the films of a split, their patients and those with PNEUMONIA, and `digest`: 16 hex digits that follow
    from paths, labels, patients and pixels, so that equal digests mean that the same films were seen."""
    told = films[["path", "label", "patient"]].to_csv(index=False, lineterminator="\n")
    digest = hashlib.sha256(told.encode())
    for row in films["row"]:
        digest.update(images[row].tobytes())
    counts = {"films": len(films), "patients": films["patient"].nunique(), "pneumonia": int(films["target"].sum())}
    return {"digest": digest.hexdigest()[:16], **counts}
