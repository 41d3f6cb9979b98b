"""The networks of all hubs behind one door: found, built, and fed at the scale of their weights."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pulmo.base.errors import UserError
from pulmo.model.hubs import hf_models, timm_models, xrv_models
from pulmo.model.hubs.names import LIBRARIES, HubName, read_name
from pulmo.model.hubs.pretrained import Pretrained, Scale, WeightsNotAtHand


class HubModels(Protocol):
    """The module of a hub."""

    def find(self, weights: HubName) -> Pretrained:
        """The weights on this machine, downloaded where they are not in the hub's cache; WeightsNotAtHand where they
        cannot be had."""
        ...

    def build(self, name: str, outputs: int, size: int, config: Mapping[str, Any], file: Path | None) -> nn.Module:
        """The network with a last layer of so many outputs, for films of `size` pixels; all other layers have the
        weights of the file, where one is named."""
        ...

    def scale(self, name: str, config: Mapping[str, Any]) -> Scale:
        """The scale of films that the network's weights expect."""
        ...


_MODELS: dict[str, HubModels] = {"timm": timm_models, "xrv": xrv_models, "hf": hf_models}


def find_pretrained(weights: str) -> Pretrained | None:
    """The weights that train.weights names on a hub, on this machine; None where it names no hub."""
    named = read_name(weights)
    return _models_of(named).find(named) if named else None


def build_network(
    arch: HubName, outputs: int, size: int, config: Mapping[str, Any], file: Path | None = None
) -> nn.Module:
    """A hub's network with so many outputs for films of `size` pixels; where a file is named, with its weights."""
    try:
        network = _models_of(arch).build(arch.name, outputs, size, config, file)
    except (AssertionError, ValueError, RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        if file:
            raise UserError(f"train.weights: {file} does not fit {arch} ({reason})", "fetch it again") from error
        raise UserError(
            f"train.arch: {arch} cannot take preprocess.size {size} ({reason})", "choose another preprocess.size"
        ) from error
    _check_patches(network, arch, size)
    if wrong := [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]:
        raise UserError(f"{file}: {wrong[0]} holds numbers that are not finite", "choose other weights")
    return network


def _check_patches(network: nn.Module, arch: HubName, size: int) -> None:
    """UserError where patches do not fill the film, for the network would leave its right and lower edge unseen."""
    sides = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    side = sides[0] if isinstance(sides, tuple) else sides
    if isinstance(side, int) and size % side:
        raise UserError(
            f"train.arch: {arch} cannot take preprocess.size {size}, which its patches of {side} pixels do not fill",
            f"set preprocess.size to a multiple of {side}, such as {max(side, round(size / side) * side)}",
        )


def find_scale(arch: HubName, config: Mapping[str, Any]) -> Scale:
    """The scale of films that the weights of a hub's network expect."""
    return _models_of(arch).scale(arch.name, config)


def _models_of(name: HubName) -> HubModels:
    library = LIBRARIES[name.hub]
    if find_spec(library) is None:
        raise WeightsNotAtHand(f"{name} needs the library {library}", f"pip install 'pulmo[{name.hub}]'")
    return _MODELS[name.hub]
