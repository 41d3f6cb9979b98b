"""The layers that give a network's feature maps, found by watching it work."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulmo.base.errors import UserError
from pulmo.model.scoring import to_input
from pulmo.package.info import IMAGENET_MEAN, IMAGENET_STD


def find_feature_map(
    model: nn.Module, image: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> str:
    """Name of the last layer whose output still has places (N, channels, h, w); leaves the model in eval mode.

    `image` is any film, uint8 (1, S, S). UserError where the network ends in tokens instead, as transformers do.
    """
    layer = last_feature_map(model, image, mean, std)
    if layer is None:
        raise UserError(
            "Grad-CAM needs a network that ends in a feature map, and this one ends in tokens",
            "choose a convolutional train.arch for heat maps",
        )
    return layer


def last_feature_map(
    model: nn.Module, image: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> str | None:
    """`find_feature_map`, but None where the network ends in tokens."""
    placed = [
        (name, shape)
        for name, shape in _list_outputs(model, image, mean, std)
        if len(shape) > 2 and shape[2:].numel() > 1
    ]
    if not placed:
        return None
    name, shape = placed[-1]
    square = len(shape) == 4 and shape[2] == shape[3]  # else channels come last, as in some transformers
    return name if square else None


def find_stages(
    model: nn.Module, image: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> list[str]:
    """Names of the layers that end each of the four coarsest resolutions, shallow first: a ResNet's four blocks.

    Leaves the model in eval mode. Fewer where the network has fewer resolutions, none where it has no feature maps
    (N, channels, h, h).
    """
    outputs = _list_outputs(model, image, mean, std)
    calls = Counter(name for name, _ in outputs)  # a layer called at two places has no one output
    ends: dict[int, str] = {}
    for name, shape in outputs:
        if len(shape) == 4 and shape[2] == shape[3] > 1 and calls[name] == 1:
            before = ends.get(shape[2])
            if before is None or name.count(".") <= before.count("."):  # whole blocks before their parts
                ends[shape[2]] = name
    return [ends[side] for side in sorted(ends, reverse=True)][-4:]


def _list_outputs(
    model: nn.Module, image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> list[tuple[str, torch.Size]]:
    """Name and output shape of every layer, in the order in which they end."""
    shapes: list[tuple[str, torch.Size]] = []
    model.eval()
    gray = torch.from_numpy(np.ascontiguousarray(image)).to(next(model.parameters()).device)
    with ExitStack() as watched, torch.no_grad():
        for name, layer in model.named_modules():
            if name:
                watch = partial(_note_shape, shapes, name)
                watched.callback(layer.register_forward_hook(watch).remove)
        model(to_input(gray, mean, std))
    return shapes


def _note_shape(shapes: list[tuple[str, torch.Size]], name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor):
        shapes.append((name, output.shape))
