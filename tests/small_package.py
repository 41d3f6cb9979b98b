"""A model package that answers, made in a second: a network with random weights and a decision that is made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pulmo.model.classifier import Classifier
from pulmo.model.export import export_network
from pulmo.model.networks import build_model
from pulmo.model.weights import to_arrays
from pulmo.package.familiarity import Familiarity
from pulmo.package.info import PackageInfo
from pulmo.package.sessions import _open_core
from pulmo.package.storage import save_package

LOCKED = {
    "temperature": {"value": 0.5, "note": ""},
    "operating_point": {"policy": "fixed", "threshold": 0.5, "low": 0.4, "high": 0.6},
    "abstention": {"target_error": 0.02, "low": 0.45, "high": 0.55, "reached": True},
}
ESTIMATES = {name: {"value": 0.9, "low": 0.8, "high": 0.95} for name in ("sensitivity", "specificity")}


def make_package(folder: Path, familiarity: Familiarity | None = None, **changes: Any) -> Path:
    """Write a package of SqueezeNet for 64 pixels into `folder`; `changes` are to keys of model.json."""
    told = {"arch": "squeezenet1_1", "head": 2, "size": 64, "fit": "pad", "threshold": 0.5, "temperature": 0.5}
    made = {"locked": LOCKED, "metrics": {"estimates": ESTIMATES}, "git_revision": "abc" * 13}
    info = PackageInfo(**{**told, **made, **changes})
    torch.manual_seed(0)
    network = build_model(info.arch, "none", info.head, info.size).eval()
    exported = export_network(Classifier(network, info), np.zeros((1, info.size, info.size), np.uint8))
    save_package(folder, to_arrays(network), info, network=exported, familiarity=familiarity)
    return folder


def require_bf16() -> None:
    """Skip a test where this processor does not compute in bf16; made-up measurements in test_checked.py stand in."""
    if "BF16" not in _open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bf16; made-up measurements in test_checked.py stand in")
