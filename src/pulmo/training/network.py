"""The network to train: built, checked against the size of the films, cut behind its frozen part, compiled."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.base.params import TrainParams
from pulmo.model.start import Start, start_network
from pulmo.training.batchnorm import share_batch_norm
from pulmo.training.devices import share_weights
from pulmo.training.freezing import split_frozen


def prepare_network(settings: TrainParams, size: int, fabric: Fabric) -> tuple[Start, nn.Module | None, nn.Module]:
    """The network for films of `size` pixels on the device, its frozen part (or None) and the rest, which is trained.

    The parts share the layers of the network, and all processes its weights. Where these will be cut into shares, the
    network is a copy of its own, which stays whole.
    """
    torch.manual_seed(settings.seed)
    start = start_network(settings.arch, settings.weights, settings.head, size)
    model = start.network
    _check_size(model, start.arch, size, "preprocess.size")
    if settings.early_size:
        _check_size(model, start.arch, settings.early_size, "train.early_size")
    sharded = settings.strategy == "fsdp"
    frozen, net = split_frozen(model, settings.freeze)
    # Shares are cut from contiguous weights alone.
    model.to(fabric.device).to(memory_format=torch.contiguous_format if sharded else torch.channels_last)
    if fabric.world_size > 1:
        share_weights(model)
        start = replace(start, network=copy.deepcopy(model).cpu()) if sharded else start
        share_batch_norm(net, fabric.device)
    return start, frozen, net


def _check_size(model: nn.Module, arch: str, size: int, key: str) -> None:
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"train.arch: {arch} cannot take {key} {size} ({reason})", f"raise {key}, or choose another train.arch"
        ) from error
    model.train()


class Compilable(nn.Module):
    """A network that can be compiled while it is in use; where that fails it computes as before."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self.asked = False

    def compile_soon(self) -> None:
        """Compile at the next call, unless it was asked for before."""
        if not self.asked:
            self.asked, self._compiled = True, torch.compile(self.net.forward)

    def forward(self, inputs: Tensor) -> Tensor:
        if self._compiled is not None:
            try:
                return self._compiled(inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:  # as those of torch.compile are, before anything has been computed
                self._compiled = None
                tqdm.write(f"training goes on uncompiled ({' '.join(str(error).split())[:200]})")
        outputs: Tensor = self.net(inputs)
        return outputs
