"""State dicts of networks: read from files as people have them, and fitted into a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pulmo.base.errors import UserError
from pulmo.model.hubs.names import read_name
from pulmo.model.weight_files import find_network, read_state

# One output, always, and inputs scaled as their weights want it, which torchvision does only with weights of its own.
GOOGLENET_AND_INCEPTION = {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None, "transform_input": True}
_COUNTER = "num_batches_tracked"  # which older files lack
_NAMED = 3  # keys of each kind that a message names


def names_file(weights: str) -> bool:
    """True where train.weights is the path of a file, for no set of torchvision's has a dot or a slash in its name."""
    return ("." in weights or "/" in weights) and read_name(weights) is None


def find_head(model: nn.Module) -> str:
    """Name of the last layer with weights: the one that gives the class scores."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def load_file_into(model: nn.Module, file: Path, arch: str) -> None:
    """Take over the weights of a file, its last layer only if that has the shape of the model's.

    Raises UserError where the file cannot be read, or holds the weights of no such network.
    """
    head, own = find_head(model), model.state_dict()
    state, left_out = find_network(read_state(file), own.keys(), file)
    state = {key: value for key, value in state.items() if key.split(".")[0] not in GOOGLENET_AND_INCEPTION}
    layer = {key: value for key, value in state.items() if key.startswith(f"{head}.")}
    if layer and _shapes(layer) != _shapes({key: value for key, value in own.items() if key.startswith(f"{head}.")}):
        state = {key: value for key, value in state.items() if key not in layer}
        print(f"{file}: its last layer, {head}, gives other outputs, so that of {arch} is new")
    needless = (f"{head}.weight", f"{head}.bias", _COUNTER)
    problems = {
        "lacks": [key for key in own if key not in state and not key.endswith(needless)],
        "has the unknown": [key for key in state if key not in own],
        "has another shape of": [
            f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ],
    }
    if problem := "; it ".join(f"{what} {_enumerate(keys)}" for what, keys in problems.items() if keys):
        raise UserError(
            f"train.weights: {file} does not fit {arch}: it {problem}",
            "name weights of this train.arch, or change train.arch",
        )
    model.load_state_dict(state, strict=False)
    if left_out:
        print(f"{file}: {len(left_out):,} tensors beside the network are left out, {left_out[0]} for one")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in tensors.items()}


def _enumerate(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more


def list_choices(names: Sequence[str]) -> str:
    return f"choose {', '.join(names)}"


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """The state of a network as NumPy arrays by name, for a model package."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in network.state_dict().items()}
