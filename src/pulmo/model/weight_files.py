"""Files of weights as people have them: which tensors in them are a network's.

Nothing but tensors is ever unpickled, for a pickle can run any code.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulmo.base.errors import UserError

# Where training programs put the weights of the network, among optimizers, counters and settings.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
_SCALAR: Any = np.float64(0).__reduce__()[0]
# What such programs save besides, and what does nothing when it is made: their command line, numbers of NumPy.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_MODULES = ("torch.nn.modules.", "torchvision.models.", "torch.fx.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=\d)")  # of files before torchvision 0.3
_PLAIN = "save the weights alone, torch.save(model.state_dict(), FILE), or as safetensors"


def read_state(file: Path) -> dict[str, Tensor]:
    """The weights by name that a file holds, whatever training program wrapped them; a missing, damaged or other file
    is a UserError that names it."""
    content = _load(file)
    state = _unwrap(content)
    if state is None:
        holds = f"holds {', '.join(repr(key)[:40] for key in list(content)[:5])}" if isinstance(content, dict) else ""
        raise UserError(f"{file} {holds or f'is a {type(content).__name__}'}, no state dict (name: tensor)", _PLAIN)
    if wrong := [name for name, value in state.items() if not torch.isfinite(value).all()]:
        raise UserError(f"{file}: {wrong[0]} holds numbers that are not finite", "put sound weights in its place")
    return state


def find_network(state: Mapping[str, Tensor], own: Collection[str], file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the network whose keys are `own`, without what wrappers put before its names (module., model.),
    and the names of those beside it. UserError where two networks fit."""
    state = {_OLD_DENSENET.sub(r"\1", key): value for key, value in state.items()}
    fitting = Counter(prefix for key in state for prefix in _prefixes(key, own))
    whole = [(prefix, count) for prefix, count in fitting.most_common(2) if 2 * count > len(own)]
    if len(whole) == 2 and whole[0][1] == whole[1][1]:
        names = " and ".join(prefix or "the top level" for prefix, _ in whole)
        raise UserError(f"train.weights: {file} holds several networks, below {names}", "save one of them alone")
    prefix = whole[0][0] if whole else ""
    network = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return network, [key for key in state if not key.startswith(prefix)]


def _prefixes(key: str, own: Collection[str]) -> list[str]:
    """What stands before each end of the key that is one of `own`."""
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
    return [key[:start] for start in starts if key[start:] in own]


def _unwrap(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    inner = [content[name] for name in _CONTAINERS if name in content]
    return next((state for value in inner if (state := _unwrap(value))), None)


def _load(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with file.open("rb") as opened:
            head = opened.read(9)
        # eight bytes of length, then JSON, whatever the file is called
        if file.suffix == ".safetensors" or head[8:] == b"{":
            return load_file(file)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file} not found", "name an existing file of weights") from None
    except UnpicklingError as error:
        raise _refusal(file, str(error)) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{file} is a compiled model (TorchScript)",
                f"make a state dict of it: torch.save(torch.jit.load({str(file)!r}).state_dict(), 'weights.pth')",
            ) from error
        raise UserError(
            f"{file} cannot be read as weights ({' '.join(str(error).split())[:200]})",
            "name a file of weights, .safetensors, .pth or .ckpt, or put a whole copy in its place",
        ) from error


def _refusal(file: Path, reason: str) -> UserError:
    """The error for a pickle of more than tensors, with the way to what can be read."""
    try:
        others = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (
        ValueError,
        RuntimeError,
        UnpicklingError,
        EOFError,
        OSError,
    ):  # a file of PyTorch before 1.6, or none at all
        others = re.findall(r"GLOBAL (\S+)", reason)
    load = f"torch.load({str(file)!r}, map_location='cpu', weights_only=False)"
    trust = "if you trust who made it, for this runs its code"
    if any(name.startswith(_MODULES) for name in others):
        return UserError(
            f"{file} holds a whole pickled model, more than tensors, which is refused",
            f"make a state dict of it, {trust}: torch.save({load}.state_dict(), 'weights.pth')",
        )
    named = f" ({', '.join(others[:3])})" if others else ""
    return UserError(
        f"{file} holds more than tensors{named}, which is refused",
        f"take the state dict out of it, {trust}: torch.save({load}['state_dict'], 'weights.pth')",
    )
