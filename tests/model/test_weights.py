"""Weights in the files that training programs write."""

import argparse
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from pulmo.base.errors import UserError
from pulmo.model.networks import build_model

ARCH, SIZE = "squeezenet1_1", 64


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return build_model(ARCH, "none", 2, SIZE)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((prefix + key, value) for key, value in state.items())


def training_state(state: dict[str, torch.Tensor], name: str, **others: Any) -> dict[str, Any]:
    """A checkpoint such as training programs save: weights beside an optimizer and counters."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 3,
        "arch": ARCH,
        name: state,
        "best_acc1": torch.tensor(0.9),
        "optimizer": optimizer.state_dict(),
    } | others


LIGHTNING = {"pytorch-lightning_version": "2.4.0", "global_step": 9, "loops": {}, "hyper_parameters": {"lr": 0.1}}
WRAPPED = {
    "best.pth": lambda state: state,
    "weights.bin": lambda state: state,
    "noname/": lambda state: state,
    "imagenet.pth.tar": lambda state: training_state(prefixed(state, "module."), "state_dict"),
    "reference.pth": lambda state: training_state(state, "model", args=argparse.Namespace(lr=0.1, output_dir=".")),
    "scored.pth": lambda state: training_state(state, "state_dict", auc=np.float64(0.9), step=np.int64(3)),
    "tutorial.tar": lambda state: training_state(state, "model_state_dict"),
    "cifar.t7": lambda state: {"net": prefixed(state, "module."), "acc": 93.5},
    "epoch=3.ckpt": lambda state: training_state(prefixed(state, "model."), "state_dict", **LIGHTNING),
    "loss.ckpt": lambda state: training_state(
        prefixed(state, "model.") | {"criterion.weight": torch.ones(2)}, "state_dict", **LIGHTNING
    ),
    "own.ckpt": lambda state: training_state(prefixed(state, "classifier.backbone."), "state_dict", **LIGHTNING),
    "compiled.pt": lambda state: prefixed(state, "_orig_mod."),
    "both.pt": lambda state: {"model": {"state_dict": prefixed(state, "module._orig_mod.")}},
    "average.pt": lambda state: prefixed(state, "module.") | {"n_averaged": torch.tensor(4)},
    "parameters.pth": lambda state: {key: nn.Parameter(value) for key, value in state.items()},
    "half.pth": lambda state: {key: value.half().float() for key, value in state.items()},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_taken_from_what_training_programs_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], network: nn.Module, name: str
) -> None:
    file = tmp_path / (name if name[-1] != "/" else "weights")
    torch.save(WRAPPED[name](network.state_dict()), file)
    taken = build_model(ARCH, str(file), 2, SIZE).state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(taken[key], value.half().float() if name == "half.pth" else value)
    said = capsys.readouterr().out
    beside = {"loss.ckpt": "criterion.weight", "average.pt": "n_averaged"}.get(name)
    assert said == (f"{file}: 1 tensors beside the network are left out, {beside} for one\n" if beside else "")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_safetensors_are_told_by_their_content(tmp_path: Path, network: nn.Module, name: str) -> None:
    save_file(prefixed(network.state_dict(), "module."), tmp_path / name)
    taken = build_model(ARCH, str(tmp_path / name), 2, SIZE).state_dict()
    assert all(torch.equal(taken[key], value) for key, value in network.state_dict().items())


def test_a_file_of_an_older_format_is_read(tmp_path: Path, network: nn.Module) -> None:
    torch.save({"state_dict": network.state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    taken = build_model(ARCH, str(tmp_path / "old.pth"), 2, SIZE).state_dict()
    assert all(torch.equal(taken[key], value) for key, value in network.state_dict().items())


def test_old_names_of_densenet_and_a_head_of_several_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the best-known weights for chest films have them."""
    own = models.densenet121().state_dict()
    old = {
        "module.densenet121." + key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in own.items()
        if not key.startswith("classifier") and not key.endswith("num_batches_tracked")
    }
    head = {
        f"module.densenet121.classifier.0.{name}": torch.ones(14, *rest)
        for name, rest in (("weight", [1024]), ("bias", []))
    }
    torch.save({"state_dict": old | head, "best_loss": 0.3}, tmp_path / "model.pth.tar")
    taken = build_model("densenet121", str(tmp_path / "model.pth.tar"), 2, SIZE).state_dict()
    assert all(
        torch.equal(taken[key], value) for key, value in own.items() if key.endswith(("conv2.weight", "norm1.bias"))
    )
    assert "its last layer, classifier, gives other outputs, so that of densenet121 is new" in capsys.readouterr().out


def save_torchscript(network: nn.Module, file: Path) -> None:
    torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 3, SIZE, SIZE)), file)


REFUSED = {
    "a whole model": (
        torch.save,
        r"holds a whole pickled model",
        r"torch\.save\(torch\.load\('.*weights\.pth', .*\.state_dict\(\)",
    ),
    "a model in a checkpoint": (
        lambda net, file: torch.save({"model": net}, file),
        "whole pickled model",
        "state_dict",
    ),
    "a whole model of an older format": (
        lambda net, file: torch.save(net, file, _use_new_zipfile_serialization=False),
        "whole pickled model",
        "state_dict",
    ),
    "objects beside the weights": (
        lambda net, file: torch.save({"state_dict": net.state_dict(), "path": Path("x")}, file),
        r"holds more than tensors \(pathlib",
        r"weights_only=False\)\['state_dict'\]",
    ),
    "TorchScript": (save_torchscript, "is a compiled model", r"torch\.jit\.load"),
    "no weights": (
        lambda net, file: torch.save({"epoch": 1, "loss": 2.5}, file),
        "holds 'epoch', 'loss', no state dict",
        "alone",
    ),
    "a tensor": (lambda net, file: torch.save(torch.ones(2), file), "is a Tensor, no state dict", "alone"),
    "two networks": (
        lambda net, file: torch.save(
            prefixed(net.state_dict(), "student.") | prefixed(net.state_dict(), "teacher."), file
        ),
        r"several networks, below student\. and teacher\.",
        "one of them",
    ),
    "not a number": (
        lambda net, file: torch.save(
            {"state_dict": net.state_dict() | {"features.0.bias": torch.full((64,), torch.nan)}}, file
        ),
        r"weights\.pth: features\.0\.bias holds numbers that are not finite",
        "sound weights",
    ),
    "another network": (
        lambda net, file: torch.save(prefixed(models.resnet18().state_dict(), "module."), file),
        r"does not fit squeezenet1_1: it lacks features\.0\.weight, features\.0\.bias, .* and \d+ more; "
        r"it has the unknown module\.conv1\.weight, ",
        "train.arch",
    ),
    "another shape": (
        lambda net, file: torch.save(models.squeezenet1_0().state_dict(), file),
        r"it has another shape of features\.0\.weight \(96, 3, 7, 7\) for \(64, 3, 3, 3\), ",
        "train.arch",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize(("write", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_why_and_what_to_do(
    tmp_path: Path, network: nn.Module, write: Any, message: str, hint: str
) -> None:
    file = tmp_path / "weights.pth"
    write(network, file)
    with pytest.raises(UserError, match=message) as caught:
        build_model(ARCH, str(file), 2, SIZE)
    assert "\n" not in caught.value.message
    assert "weights.pth" in caught.value.message
    assert re.search(hint, caught.value.hint)
