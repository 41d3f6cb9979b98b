"""The contents of model.json: everything that is known about a model beside its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pulmo.base.errors import UserError
from pulmo.base.files import read_json
from pulmo.package.harmony import Harmony, count_rings

CARD = "model.json"
MAX_SIZE = 1024  # pixels, as params.yaml allows; a larger one would take the memory of the machine
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values 0..1; torchvision's weights were trained with these
IMAGENET_STD = (0.229, 0.224, 0.225)
# Test-time augmentation: mirrored or not, degrees turned, zoom. The film alone, then four that balance one another.
TTA_VIEWS = (
    (False, 0.0, 1.0),
    (False, -6.0, 0.92),
    (False, 6.0, 1.08),
    (True, 6.0, 0.92),
    (True, -6.0, 1.08),
)

Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[\w .+-]*$")]  # it is printed, and goes into reports
Arch = Annotated[str, Field(pattern=r"^[\w .+:/-]*$")]


class PackageInfo(BaseModel):
    """The content of model.json: read-only, no unknown key, no silent conversion (but JSON's lists for tuples)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1  # raised when the meaning of a key changes
    arch: Arch  # torchvision's name, or a hub's such as timm:NAME
    head: Literal[1, 2]  # output neurons
    classes: tuple[Literal["NORMAL"], Literal["PNEUMONIA"]] = ("NORMAL", "PNEUMONIA")
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)]  # side of the square input in pixels
    fit: Literal["squash", "crop", "pad"]  # how a film is brought to that square
    harmony: Harmony = Harmony()  # the acquisition that it is then brought to
    mean: Triple = IMAGENET_MEAN  # per channel, of values 0..1
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    tta_views: Annotated[int, Field(ge=1, le=len(TTA_VIEWS))] = 1  # copies of a film whose mean log-odds count
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # that of `locked`, for whoever reads the file alone
    temperature: Positive | None = None  # that of `locked` as well
    locked: dict[str, Any] = {}  # what validation decided, for `metrics.locked.read_locked`; empty until evaluate
    network: dict[str, Any] = {}  # what builds a hub's network, where its name does not suffice
    origin: dict[str, str] = {}  # of weights from a hub: source, revision, file, sha256 and licence
    training: dict[str, Any] = {}  # settings of the training, best epoch, its validation metrics
    metrics: dict[str, Any] = {}  # of the evaluation: val, test, and estimates of test with their intervals
    data_sha256: Name = ""  # of the films and the split that it was trained on
    git_revision: Name = ""
    weights_sha256: Name = ""  # of weights.safetensors; filled in when the package is saved
    onnx_sha256: Name = ""  # of model.onnx; empty where the package has none
    familiarity_sha256: str = ""  # of familiarity.npz; empty where the package has none
    onnx: dict[str, Any] = {}  # opset, versions and outputs of model.onnx, and how near it comes to PyTorch

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.locked and (self.threshold, self.temperature) != _threshold_and_temperature(self.locked):
            raise ValueError("threshold and temperature differ from those of locked")
        if self.harmony.spectrum and len(self.harmony.spectrum) != count_rings(self.size):
            raise ValueError("harmony holds a spectrum of films of another size")
        return self

    def with_locked(self, locked: Mapping[str, Any]) -> Self:
        """The same with what validation decided, as `metrics.locked.Locked.to_json` returns it."""
        threshold, temperature = _threshold_and_temperature(locked)
        return self.model_copy(update={"threshold": threshold, "temperature": temperature, "locked": dict(locked)})


def _threshold_and_temperature(locked: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The two numbers of a decision that stand in model.json a second time; None where it does not hold them."""
    point, temperature = (locked.get(key) for key in ("operating_point", "temperature"))
    if not isinstance(point, Mapping) or not isinstance(temperature, Mapping):
        raise ValueError("locked holds no operating point or no temperature")
    return point.get("threshold"), temperature.get("value")


def read_info(folder: Path) -> PackageInfo:
    """Read and check model.json alone; anything wrong is a UserError that names the file and the key."""
    file = folder / CARD
    if not file.is_file():
        raise UserError(f"{file} not found: {folder} is no model package", "run `dvc repro`, or name another folder")
    try:
        return PackageInfo.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(
            f"{file}: {key}: {first['msg'].removeprefix('Value error, ')}",
            "it was edited or made by another version of Pulmo: run `dvc repro` again",
        ) from None
