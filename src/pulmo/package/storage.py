"""Packages written whole, and verified when they are read.

Beside weights and model.json, model.onnx answers without PyTorch, and films.csv lists the films that the model was made
with, so that it knows them again among others.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pulmo.base.errors import UserError
from pulmo.base.files import sha256_file, whole_folder, write_bytes, write_json
from pulmo.package.familiarity import Familiarity
from pulmo.package.info import CARD, PackageInfo, read_info

WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
FAMILIARITY = "familiarity.npz"
FILMS = "films.csv"  # columns pixel_sha256, split
_COLUMNS = ["pixel_sha256", "split"]
_MOST_BYTES = 2**31  # of model.onnx, by its format


@dataclass(frozen=True)
class OnnxFile:
    """The content of model.onnx, and what model.json says of it."""

    content: bytes
    facts: Mapping[str, Any]


def save_package(
    folder: Path,
    state: Mapping[str, NDArray[Any]],
    info: PackageInfo,
    films: Mapping[str, str] | None = None,
    network: OnnxFile | None = None,
    familiarity: Familiarity | None = None,
) -> PackageInfo:
    """Write the package, whole or not at all, in place of an earlier one; returns `info` with the files' hashes.

    `state`: the network's arrays by name. `films`: split (train, val, test) by the pixel hash of each film that the
    model was made with. `network`: the same network for answers without PyTorch. `familiarity`: tells films unlike
    those that it learnt from.
    """
    from safetensors.numpy import save

    with whole_folder(folder) as temporary:
        write_bytes(temporary / WEIGHTS, save(dict(state)))
        info = info.model_copy(update={"weights_sha256": sha256_file(temporary / WEIGHTS)})
        if network:
            write_bytes(temporary / ONNX, network.content)
            described = {"onnx_sha256": sha256_file(temporary / ONNX), "onnx": dict(network.facts)}
            info = info.model_copy(update=described)
        if familiarity:
            write_bytes(temporary / FAMILIARITY, familiarity.to_bytes())
            info = info.model_copy(update={"familiarity_sha256": sha256_file(temporary / FAMILIARITY)})
        write_json(temporary / CARD, info.model_dump(mode="json"))
        if films:
            rows = "".join(f"{digest},{split}\n" for digest, split in sorted(films.items()))
            write_bytes(temporary / FILMS, f"{','.join(_COLUMNS)}\n{rows}".encode())
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


def read_onnx(folder: Path) -> tuple[PackageInfo, bytes]:
    """The info of a package that can answer, and the content of its model.onnx; UserError where it cannot, or where
    the file is not the one that model.json describes."""
    info, file = read_info(folder), folder / ONNX
    if info.threshold is None or info.temperature is None:
        raise UserError(
            f"{folder} has no locked threshold", "use models/package, which `dvc repro` writes once it has evaluated"
        )
    if not file.is_file():
        raise UserError(
            f"{file} not found: the package is incomplete, or an earlier version of Pulmo made it",
            "copy it again, or make it anew by `dvc repro -f -s evaluate`",
        )
    content = file.read_bytes() if file.stat().st_size <= _MOST_BYTES else b""
    if sha256(content).hexdigest() != info.onnx_sha256:
        raise UserError(f"{file} is damaged or not the one that {CARD} describes", "copy the package again")
    return info, content


def read_familiarity(folder: Path, info: PackageInfo) -> Familiarity | None:
    """The measure that tells films unlike those that the model learnt from; None where the package has none.
    UserError where the file is not the one that `info` describes."""
    if not info.familiarity_sha256:
        return None  # a package of an earlier version, or a network without feature maps
    file = folder / FAMILIARITY
    if not file.is_file():
        raise UserError(f"{file} not found: the package is incomplete", "copy it again")
    content = file.read_bytes()
    if sha256(content).hexdigest() != info.familiarity_sha256:
        raise UserError(f"{file} is damaged or not the one that {CARD} describes", "copy the package again")
    return Familiarity.from_bytes(content)


def read_known(folder: Path) -> dict[str, str]:
    """Split by the pixel hash of each film that the model was made with; empty where the package does not say."""
    file = folder / FILMS
    if not file.is_file():
        return {}  # a package of an earlier version, or one that was trained but not evaluated
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
        known = dict(rows)
    except (ValueError, csv.Error):  # no text, no line, or lines of other lengths
        header, known = [], {}
    if header != _COLUMNS:
        raise UserError(f"{file} does not have the columns pixel_sha256,split", "copy the package again")
    return known
