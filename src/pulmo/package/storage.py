"""Packages written whole, and verified when they are read.

Beside weights and model.json, films.csv lists the films that the model was made with, so that it knows them again among
others.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file, whole_folder, write_bytes, write_csv, write_json
from pulmo.package.info import CARD, PackageInfo, read_info

WEIGHTS = "weights.safetensors"
FILMS = "films.csv"  # columns pixel_sha256, split


def save_package(
    folder: Path, state: Mapping[str, NDArray[Any]], info: PackageInfo, films: Mapping[str, str] | None = None
) -> PackageInfo:
    """Write the package, whole or not at all, in place of an earlier one; returns `info` with the weights' hash.

    `state`: the network's arrays by name. `films`: split (train, val, test) by the pixel hash of each film that the
    model was made with.
    """
    from safetensors.numpy import save

    with whole_folder(folder) as temporary:
        write_bytes(temporary / WEIGHTS, save(dict(state)))
        info = info.model_copy(update={"weights_sha256": sha256_file(temporary / WEIGHTS)})
        write_json(temporary / CARD, info.model_dump(mode="json"))
        if films:
            write_csv(temporary / FILMS, pd.DataFrame(sorted(films.items()), columns=["pixel_sha256", "split"]))
    return info


def verify_package(folder: Path) -> PackageInfo:
    """The info of a package whose weights are those that model.json describes; any other is a UserError that names the
    file."""
    info, file = read_info(folder), folder / WEIGHTS
    if not file.is_file():
        raise UserError(f"{file} not found: the package is incomplete", "copy it again or run `dvc repro`")
    if info.weights_sha256 and sha256_file(file) != info.weights_sha256:
        raise UserError(f"{file} is damaged or not the one that {CARD} describes", "copy the package again")
    return info


def read_known(folder: Path) -> dict[str, str]:
    """Split by the pixel hash of each film that the model was made with; empty where the package does not say."""
    file = folder / FILMS
    if not file.is_file():
        return {}  # a package of an earlier version, or one that was trained but not evaluated
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != ["pixel_sha256", "split"]:
        raise UserError(f"{file} does not have the columns pixel_sha256,split", "copy the package again")
    return dict(zip(table.pixel_sha256, table.split, strict=True))
