"""Batch norm over the films of all processes, so that their number changes nothing but the rounding."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function

from pulmo.base.errors import UserError


def share_batch_norm(net: nn.Module, device: torch.device) -> None:
    """Have batch norm take mean and variance over the batches of all processes.

    The layers themselves change, for the whole network and its trainable part refer to the same ones.
    """
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            changed: Any = layer
            changed.__class__, changed.process_group = _shared_kind(layer, device), None  # the default group


def _shared_kind(layer: nn.Module, device: torch.device) -> type[nn.Module]:
    """The class that a layer of batch norm gets."""
    on_gpu = device.type == "cuda"
    if type(layer).forward is nn.BatchNorm2d.forward:
        return nn.SyncBatchNorm if on_gpu else CpuSyncBatchNorm
    if hasattr(layer, "drop") and hasattr(layer, "act"):  # a layer of timm
        return _SyncBatchNormAct if on_gpu else _CpuSyncBatchNormAct
    reason = f"several devices cannot share the batch norm of this network ({type(layer).__name__})"
    raise UserError(reason, "set train.devices: 1, or choose another network")


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.SyncBatchNorm` trains on GPUs alone."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take inputs of any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """The inputs (batch, channels, ...) of this process, normalised over those of all."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        axes = [0, *range(2, values.ndim)]
        shape = (1, -1, *[1] * (values.ndim - 2))
        sums = all_sum(torch.cat([values.sum(axes), values.new_tensor([values[:, 0].numel()])]))
        mean, count = sums[:-1] / sums[-1].detach(), sums[-1].detach()
        centred = values - mean.view(shape)
        variance = all_sum(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _ThenAct(nn.Module):
    """Dropout and activation after the normalisation, which timm has in the same layer."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """The inputs normalised and activated."""
        outputs: Tensor = self.act(self.drop(super().forward(input)))
        return outputs


class _SyncBatchNormAct(_ThenAct, nn.SyncBatchNorm):
    pass


class _CpuSyncBatchNormAct(_ThenAct, CpuSyncBatchNorm):
    pass


class _AllSum(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_sum(gradients[0])  # each process has its own losses, and all of them depend on the tensor


def all_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, through which gradients flow back to each of them."""
    total: Tensor = _AllSum.apply(tensor)
    return total
