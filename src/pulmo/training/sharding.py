"""Weights, gradients and the optimiser's state cut into shares, one for each process (FSDP), and put together again."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pulmo.base.errors import UserError


def shard(net: nn.Module) -> None:
    """Leave each process a share of every weight. The weights of one block at a time come together for its layers.

    The network changes in place: its parameters are new ones, and it can no longer be copied. UserError where some of
    its weights cannot be cut.
    """
    if numbers := [name for name, value in net.named_parameters() if not value.ndim]:
        reason = f"train.strategy fsdp cannot cut this network's {numbers[0]}, which is a single number"
        raise UserError(reason, "set train.strategy: ddp")
    mesh = init_device_mesh(next(net.parameters()).device.type, (distributed.get_world_size(),))
    for block in list(_blocks(net)):
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of every outermost sequence or list: the blocks of a network, whichever it is."""
    for child in module.children():
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            yield from _blocks(child)
        elif list(child.parameters()):
            yield child


def own_share(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory; of one that is not cut all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def join(value: Any, keep: bool = True) -> Any:
    """The same state with what was cut put together, on the CPU. All processes must take part, and one that does not
    `keep` the result has None in the place of each whole tensor."""
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.detach().cpu() if keep else None
    if isinstance(value, Mapping):
        return {key: join(item, keep) for key, item in value.items()}
    return [join(item, keep) for item in value] if isinstance(value, list) else value


def cut(whole: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of these names cut as those of `like` are, each process from its own copy."""
    return {name: _cut(value, like[name]) for name, value in whole.items()}


def cut_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole `state_dict` of this optimiser with what it holds of each parameter cut as the parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shares = {
        place: {name: _cut(value, parameters[place]) for name, value in own.items()}
        for place, own in state["state"].items()
    }
    return {**state, "state": shares}


def _cut(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or value.shape != like.shape:  # as the count of an optimiser's steps
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
