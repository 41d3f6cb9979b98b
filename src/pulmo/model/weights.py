"""State dicts of networks: read from files, and fitted into a network."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor, nn

from pulmo.base.errors import UserError

WEIGHT_FILES = (".safetensors", ".pth", ".pt")
# One output, always, and inputs scaled as their weights want it, which torchvision does only with weights of its own.
GOOGLENET_AND_INCEPTION = {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None, "transform_input": True}


def find_head(model: nn.Module) -> str:
    """Name of the last layer with weights: the one that gives the class scores."""
    names: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1]


def load_file_into(model: nn.Module, file: Path, arch: str) -> None:
    state = {key: value for key, value in read_state(file).items() if key.split(".")[0] not in GOOGLENET_AND_INCEPTION}
    head, own = find_head(model), model.state_dict()
    for key in (f"{head}.weight", f"{head}.bias"):
        if key in state and key in own and state[key].shape != own[key].shape:
            del state[key]
    needless = (f"{head}.weight", f"{head}.bias", "num_batches_tracked")  # the last counts, and older files lack it
    missing = [key for key in own if key not in state and not key.endswith(needless)]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in state if key in own and state[key].shape != own[key].shape]
    for what, keys in (("lacks", missing), ("has the unknown", unknown), ("has another shape of", shapes)):
        if keys:
            raise UserError(
                f"train.weights: {file} does not fit {arch}: it {what} {keys[0]} and {len(keys) - 1} more",
                "name weights of this train.arch, or change train.arch",
            )
    model.load_state_dict(state, strict=False)


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file; a missing, damaged or other file is a UserError that names it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file} not found", "name an existing file of weights") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read as weights ({' '.join(str(error).split())[:200]})",
            "name a file of weights, .safetensors or .pt, or put a whole copy in its place",
        ) from error
    except UnpicklingError as error:
        raise UserError(f"{file} holds more than tensors, which is refused", "save a plain state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{file} is not a plain state dict (name: tensor)",
            "save the weights alone, torch.save(model.state_dict(), FILE), or as safetensors",
        )
    if wrong := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise UserError(f"{file}: {wrong[0]} holds numbers that are not finite", "put sound weights in its place")
    return state


def list_choices(names: Sequence[str]) -> str:
    return f"choose {', '.join(names)}"


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """The state of a network as NumPy arrays by name, for a model package."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in network.state_dict().items()}
