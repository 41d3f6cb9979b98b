"""What a training needs to know, in plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from pulmo.model.augmentation import Augmentation


@dataclass(frozen=True)
class TrainSettings:
    """How to train; the fields are those of the section train of params.yaml and are explained there."""

    arch: str = "resnet18"
    weights: str = "none"
    freeze: str = "none"
    cache_variants: int = 0
    head: int = 2
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_balance: str = "none"
    optimizer: str = "adamw"
    lr: float = 0.001
    weight_decay: float = 0.01
    schedule: str = "one_cycle"
    warmup_epochs: int = 0
    epochs: int = 8
    batch_size: int = 32
    patience: int = 0
    ema: float = 0.0
    augment: Augmentation = field(default_factory=Augmentation)
    precision: str = "auto"
    device: str = "auto"
    seed: int = 42

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From plain values, `augment` being a mapping too."""
        return cls(**{**values, "augment": Augmentation(**values["augment"])})


@dataclass(frozen=True)
class Films:
    """Rows of the image array (n,) and their targets (n,), 1 = PNEUMONIA."""

    rows: np.ndarray
    targets: np.ndarray
