"""Networks: any torchvision classifier, or a hub's network, with one or two output neurons, and how it predicts.

Every film enters as gray values 0..255 and reaches the network through `to_input`, in training and in prediction.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import nn

from pulmo.base.errors import UserError
from pulmo.model.hubs.names import read_name
from pulmo.model.hubs.networks import build_network
from pulmo.model.weights import GOOGLENET_AND_INCEPTION, find_head, list_choices, load_file_into, names_file

_SIZE_ARGUMENT = {
    "vit_b_16": "image_size",
    "vit_b_32": "image_size",
    "vit_l_16": "image_size",
    "vit_l_32": "image_size",
    "vit_h_14": "image_size",
    "maxvit_t": "input_size",
}


def build_model(
    arch: str, weights: str = "none", head: int = 2, size: int = 224, config: Mapping[str, Any] | None = None
) -> nn.Module:
    """A classifier whose last layer has `head` outputs, for images of `size` pixels.

    `arch` is torchvision's name, or a hub's, such as timm:NAME, which `config` describes where that does not suffice.
    `weights` is none, imagenet (torchvision's best for `arch`), the name of a set of torchvision's weights, or the
    path of a file of weights, whose last layer is taken over only if its shape fits.
    """
    named = read_name(arch)
    if not named:
        model = _build_torchvision(arch, weights, head, size)
    elif weights == "none" or names_file(weights):
        model = build_network(named, head, size, config or {})
    else:
        raise UserError(
            f"train.weights: {arch} has no weights {weights!r}", f"choose none, {arch} or the path of a file"
        )
    if names_file(weights):
        load_file_into(model, Path(weights).expanduser(), arch)
    return model


def _build_torchvision(arch: str, weights: str, head: int, size: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if arch not in known:
        near = difflib.get_close_matches(arch, known, 3, 0.4)
        raise UserError(f"train.arch: torchvision has no classifier {arch!r}", list_choices(near or known[:8]))
    if weights == "none" or names_file(weights):
        model = _construct(arch, size)
    else:
        model = _construct_pretrained(arch, weights, size)
    for name, value in GOOGLENET_AND_INCEPTION.items():
        if hasattr(model, name):
            setattr(model, name, value)
    _replace_head(model, head)
    return model


def _construct(arch: str, size: int, **settings: Any) -> nn.Module:
    from torchvision import models

    if arch in _SIZE_ARGUMENT:
        argument = _SIZE_ARGUMENT[arch]
        settings[argument] = size if argument == "image_size" else (size, size)
    if arch in ("googlenet", "inception_v3") and "weights" not in settings:
        settings["init_weights"] = True
    try:
        model: nn.Module = models.get_model(arch, **settings)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"train.arch: {arch} cannot take preprocess.size {size}: {reason}",
            "choose another preprocess.size or train.arch",
        ) from error
    return model


def _construct_pretrained(arch: str, weights: str, size: int) -> nn.Module:
    from torchvision import models
    from torchvision.models.vision_transformer import interpolate_embeddings

    offered = models.get_model_weights(arch)
    name = offered.DEFAULT.name if weights == "imagenet" else weights
    if name not in offered.__members__:
        names = ["none", "imagenet", *offered.__members__, "the path of a file"]
        raise UserError(f"train.weights: {arch} has no weights {weights!r}", list_choices(names))
    chosen = offered[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(chosen.url).name
    try:
        if not arch.startswith("vit_"):
            return _construct(arch, size, weights=chosen)
        model = _construct(arch, size)
        state = chosen.get_state_dict(progress=True, check_hash=True)
        patch = cast(int, model.patch_size)
        model.load_state_dict(interpolate_embeddings(size, patch, state))
        return model
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        if file.exists():
            raise UserError(f"train.weights: {file} is damaged ({reason})", "put a whole copy in its place") from error
        at_hand = [f"{other.name} (at hand)" for other in offered if (folder / Path(other.url).name).exists()]
        raise UserError(
            f"train.weights: {weights} of {arch} could not be downloaded ({reason})",
            f"put {file.name} into {folder} ($TORCH_HOME/hub/checkpoints), "
            f"or set train.weights: {' or '.join(at_hand) or 'none'}",
        ) from error


def _replace_head(model: nn.Module, outputs: int) -> None:
    parent_name, _, name = find_head(model).rpartition(".")
    parent = model.get_submodule(parent_name)
    old = getattr(parent, name)
    convolution = isinstance(old, nn.Conv2d)
    setattr(
        parent, name, nn.Conv2d(old.in_channels, outputs, 1) if convolution else nn.Linear(old.in_features, outputs)
    )
    if isinstance(parent, nn.Sequential):
        for index, layer in enumerate(parent):
            if index > int(name if name.isdigit() else len(parent)) and isinstance(layer, nn.ReLU):
                parent[index] = nn.Identity()  # SqueezeNet's last ReLU would forbid log-odds below zero
