"""The model package: a folder with weights.safetensors and model.json, all that prediction needs; never a pickle.

Beside them films.csv lists the films that the model was made with, so that it knows them again among others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from pulmo.files import read_json, sha256_file, whole_folder, write_bytes, write_csv, write_json
from pulmo.model import IMAGENET_MEAN, IMAGENET_STD, TTA_VIEWS, build_model, predict_logits, read_state

WEIGHTS = "weights.safetensors"
CARD = "model.json"
FILMS = "films.csv"  # columns pixel_sha256, split

Triple = tuple[float, float, float]


class PackageInfo(BaseModel):
    """What model.json says: read-only, no unknown key, no silent conversion (but JSON's lists for tuples)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1  # raised when the meaning of a key changes
    arch: str  # torchvision's name
    head: Literal[1, 2]  # output neurons
    classes: tuple[str, str] = ("NORMAL", "PNEUMONIA")
    size: Annotated[int, Field(ge=1)]  # side of the square input in pixels
    fit: Literal["squash", "crop", "pad"]  # how a film is brought to that square
    mean: Triple = IMAGENET_MEAN  # per channel, of values 0..1
    std: Triple = IMAGENET_STD
    tta_views: Annotated[int, Field(ge=1, le=len(TTA_VIEWS))] = 1  # copies of a film whose mean log-odds count
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # of prob_pneumonia; None until evaluate locks it
    temperature: Annotated[float, Field(gt=0)] | None = None  # divides the logit; None until evaluate fits it
    locked: dict[str, Any] = {}  # all that validation decided: temperature, operating point, abstention band
    training: dict[str, Any] = {}  # settings of the training, best epoch, its validation metrics
    metrics: dict[str, Any] = {}  # of the evaluation: val, test, and estimates of test with their intervals
    data_sha256: str = ""  # of the films and the split that it was trained on
    git_revision: str = ""
    weights_sha256: str = ""  # of weights.safetensors; filled in when the package is saved


@dataclass(frozen=True)
class Package:
    """A loaded package: the network in eval mode on the CPU, and what is known about it.

    `films`: split (train, val, test) by the pixel hash of each film that it was made with; empty where it does not say.
    """

    model: nn.Module
    info: PackageInfo
    films: Mapping[str, str] = field(default_factory=dict)

    def score(
        self, images: np.ndarray, batch_size: int = 64, device: str = "auto", precision: str = "auto"
    ) -> np.ndarray:
        """Log-odds of PNEUMONIA, float32 (N,), of gray images uint8 (N, S, S) in the size and fit of `info`."""
        info = self.info
        return predict_logits(self.model, images, batch_size, device, precision, info.mean, info.std, info.tta_views)


def save_package(
    folder: Path, state: Mapping[str, Tensor], info: PackageInfo, films: Mapping[str, str] | None = None
) -> PackageInfo:
    """Write the package, whole or not at all, in place of an earlier one; returns `info` with the weights' hash.

    `films` as in `Package`.
    """
    from safetensors.torch import save

    with whole_folder(folder) as temporary:
        whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        write_bytes(temporary / WEIGHTS, save(whole))
        info = info.model_copy(update={"weights_sha256": sha256_file(temporary / WEIGHTS)})
        write_json(temporary / CARD, info.model_dump(mode="json"))
        if films:
            write_csv(temporary / FILMS, pd.DataFrame(sorted(films.items()), columns=["pixel_sha256", "split"]))
    return info


def read_info(folder: Path) -> PackageInfo:
    """Read and check model.json alone; anything wrong is a ValueError that names the file and the key."""
    file = folder / CARD
    if not file.is_file():
        raise ValueError(f"{file} not found: {folder} is no model package; run `dvc repro`, or name another folder")
    try:
        return PackageInfo.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "content"
        raise ValueError(f"{file}: {key}: {first['msg']}; it was edited, or made by another version of Pulmo") from None


def load_package(folder: Path) -> Package:
    """Load a package and verify it: hash, keys and shapes; anything wrong is a ValueError that names the file."""
    info = read_info(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file} not found: the package is incomplete; copy it again or run `dvc repro`")
    if info.weights_sha256 and sha256_file(file) != info.weights_sha256:
        raise ValueError(f"{file} is damaged or not the one that {CARD} describes; copy the package again")
    model = build_model(info.arch, "none", info.head, info.size)
    try:
        model.load_state_dict(read_state(file))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{file} does not fit {info.arch} with {info.head} outputs: {reason[:200]}") from None
    return Package(model.eval(), info, _read_known(folder / FILMS))


def _read_known(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}  # a package of an earlier version, or one that was trained but not evaluated
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != ["pixel_sha256", "split"]:
        raise ValueError(f"{file} does not have the columns pixel_sha256,split; copy the package again")
    return dict(zip(table.pixel_sha256, table.split, strict=True))
