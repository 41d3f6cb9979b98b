"""The weights of a network that was pickled whole, read without running any code of its classes.

PyTorch's own safe reader (`weights_only=True`) refuses such files of the format before PyTorch 1.6. This one resolves
names to a holder of attributes and to the few functions that put tensors together, and refuses every other name.
"""

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pulmo.base.errors import UserError


class _Layer:
    """Stands for any layer and holds its attributes."""

    dump_patches = False  # or PyTorch would write out in which lines a layer's code has changed since

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _rebuild_tensor(*arguments: Any) -> Tensor:
    tensor: Tensor = torch._utils._rebuild_tensor_v2(*arguments)
    return tensor


def _rebuild_parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def read_layers(file: Path, classes: Collection[str]) -> dict[str, Tensor]:
    """The weights by name. `classes`: full names of the layers that the network may consist of; a file that names
    anything else is a UserError that says what."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = f"{module}.{name}"
            if full not in classes and full not in _BUILDERS:
                raise UserError(
                    f"{file} holds more than layers and tensors ({full}), which is refused",
                    "delete it, so that the published file is downloaded again",
                )
            return _Layer if full in classes else _BUILDERS[full]

    def load(opened: Any, **settings: Any) -> Any:
        return Unpickler(opened, **settings).load()

    reader = SimpleNamespace(__name__="layers", Unpickler=Unpickler, load=load)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold source code to compare, which differs from a holder's
            network = torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
        return dict(_list_tensors(network))
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read as a network ({reason})", "delete it, so that it is downloaded again"
        ) from error


def _list_tensors(layer: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for kind in (layer._parameters, layer._buffers):
        for name, value in kind.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
    for name, inner in layer._modules.items():
        if inner is not None:
            yield from _list_tensors(inner, f"{prefix}{name}.")
