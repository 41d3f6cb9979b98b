"""What `params.yaml` may hold: one frozen, strict, typed model per stage, with types, ranges and impossible pairs.

Every key is explained where people edit it, in params.yaml. base/params_file.py reads the file.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, model_validator

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Column = Annotated[str, Field(min_length=1)] | Positive  # its name, or its number where the table has no header


def _check_count(value: Any, info: ValidationInfo) -> Any:
    if value == "auto" or (type(value) is int and value > 0):
        return value
    raise ValueError(
        f"train.{info.field_name}: input should be auto or greater than 0, got {value!r}", "correct the value"
    )


AutoOrCount = Annotated[Literal["auto"] | int, PlainValidator(_check_count)]  # of its own, for one message, not two
Seed = Annotated[int, Field(ge=0, lt=2**32)]
MOST_TTA_VIEWS = 5  # as many as model.TTA_VIEWS holds; not taken from there, where torch is


class Section(BaseModel):
    """A section of params.yaml: read-only, no unknown key, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)


class PhantomParams(Section):
    films: Annotated[int, Field(ge=60, le=20_000)]
    seed: Seed


class KaggleParams(Section):
    handle: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*(/versions/\d+)?$")]


class HuggingFaceParams(Section):
    repo: Annotated[str, Field(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    revision: Annotated[str, Field(min_length=1)]


class ColumnParams(Section):
    path: Column
    label: Column
    patient: Column
    split: Column


class FolderParams(Section):
    path: str
    labels: str
    columns: ColumnParams
    label_values: dict[str | int, Literal["NORMAL", "PNEUMONIA"]]
    partial: bool
    follow_links: bool
    in_place: bool


class DataParams(Section):
    source: Literal["phantom", "kaggle", "huggingface", "folder"]
    phantom: PhantomParams
    kaggle: KaggleParams
    huggingface: HuggingFaceParams
    folder: FolderParams

    @model_validator(mode="after")
    def _folder_has_path(self) -> Self:
        if self.source == "folder" and not self.folder.path:
            raise ValueError("data.source is folder but data.folder.path is empty", "name a folder, .zip or .tar.gz")
        return self


class SplitParams(Section):
    """The split into train, val and test. The defaults serve those who split from Python; params.yaml has every key."""

    from_: Literal["source", "all"] = Field("source", alias="from")
    val: Literal["carve", "source"] = "carve"
    group_by: Literal["patient", "image"] = "patient"
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.1
    drop_duplicates: bool = False
    train_films: Count = 0
    test_films: Count = 0
    seed: Seed = 42

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.from_ == "all" and self.val == "source":
            raise ValueError("split.from: all pools every film, so split.val: source cannot be kept", "use val: carve")
        if self.from_ == "all" and self.val_fraction + self.test_fraction >= 1:
            raise ValueError("split.val_fraction + split.test_fraction leave nothing to train on", "lower one of them")
        return self


class PreprocessParams(Section):
    size: Annotated[int, Field(ge=32, le=1024)]
    fit: Literal["squash", "crop", "pad"]
    harmonise: Literal["none", "gray", "spectrum", "both"]
    max_rejected: Count
    engine: Literal["local", "ray"]
    workers: Count
    store_gb: Count


class AugmentParams(Section):
    """The limit of each random change of a film; 0 switches it off."""

    flip: Share = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    aspect: Annotated[float, Field(ge=0, lt=1)] = 0.0
    translation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    edge: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    blur: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    jpeg: Annotated[int, Field(ge=0, le=100)] = 0
    spectrum: Share = 0.0


class TrainParams(Section):
    """The settings of a training. The defaults serve those who train from Python; params.yaml has every key."""

    arch: str = "resnet18"
    weights: str = "none"
    freeze: str = "none"
    cache_variants: Annotated[int, Field(ge=-1, le=100)] = 0
    head: Literal[1, 2] = 2
    loss: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_balance: Literal["none", "weights", "sampler"] = "none"
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["constant", "plateau", "cosine", "one_cycle"] = "one_cycle"
    warmup_epochs: Count = 0
    epochs: Positive = 8
    early_epochs: Count = 0
    early_size: Count = 0
    skip_easy: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_size: Annotated[int, Field(ge=2)] = 32  # batch norm needs two films
    patience: Count = 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    consistency: Annotated[float, Field(ge=0)] = 0.0
    augment: AugmentParams = AugmentParams()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    devices: AutoOrCount = 1
    num_nodes: AutoOrCount = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    seed: Seed = 42

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.loss == "bce" and self.head == 2:
            raise ValueError("train.loss: bce is for one output neuron", "set train.head: 1, or use cross_entropy")
        if self.loss == "cross_entropy" and self.head == 1:
            raise ValueError("train.loss: cross_entropy is for two logits", "set train.head: 2, or use bce")
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError("train.warmup_epochs belongs to train.schedule: cosine", "set it to 0")
        if self.schedule == "cosine" and self.warmup_epochs >= self.epochs:
            raise ValueError("train.warmup_epochs leaves no epoch to train at full rate", "lower it below train.epochs")
        if self.consistency and self.freeze != "none" and self.cache_variants != -1:
            raise ValueError(
                "train.consistency needs films, and what the frozen part makes of them is stored",
                "set train.cache_variants: -1",
            )
        if self.skip_easy and self.class_balance == "sampler":
            raise ValueError(
                "train.skip_easy and train.class_balance: sampler both choose the films of an epoch",
                "set class_balance: weights",
            )
        return self

    @model_validator(mode="after")
    def _early_epochs_possible(self) -> Self:
        if bool(self.early_epochs) != bool(self.early_size):
            raise ValueError("train.early_epochs and train.early_size go together", "set both, or both to 0")
        if self.early_epochs >= self.epochs:
            raise ValueError("train.early_epochs leaves no epoch of whole films", "lower it below train.epochs")
        if self.early_epochs and self.freeze != "none" and self.cache_variants != -1:
            raise ValueError(
                "train.early_epochs: the outputs that a frozen part has stored are those of one size",
                "set train.cache_variants: -1, or train.early_epochs and train.early_size to 0",
            )
        return self


class EvaluateParams(Section):
    operating_point: Literal["min_sensitivity", "youden", "youden_rendered", "f1", "fixed"]
    min_sensitivity: Fraction
    threshold: Share
    tta_views: Annotated[int, Field(ge=1, le=MOST_TTA_VIEWS)]
    target_error: Fraction
    bootstrap: Annotated[int, Field(ge=100)]
    rendered_films: Count
    robustness_films: Count
    explain_films: Count
    batch_size: Positive
    seed: Seed

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.operating_point == "youden_rendered" and not self.rendered_films:
            raise ValueError("evaluate.operating_point: youden_rendered needs films", "raise evaluate.rendered_films")
        return self


class PromoteParams(Section):
    min_auroc: Share
    max_ece: Share
    max_leaks: Count
    min_shortcut_margin: Annotated[float, Field(ge=-1, le=1)]


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    split: SplitParams
    preprocess: PreprocessParams
    train: TrainParams
    evaluate: EvaluateParams
    promote: PromoteParams

    @model_validator(mode="after")
    def _early_films_are_smaller(self) -> Self:
        if self.train.early_size >= self.preprocess.size:
            raise ValueError("train.early_size is no smaller than preprocess.size", "lower it")
        return self
