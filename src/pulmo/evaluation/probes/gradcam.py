"""Grad-CAM: which places of the last feature map speak for a decision (Selvaraju et al. 2017)."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pulmo.base.errors import UserError
from pulmo.model.scoring import logit_pneumonia, to_input
from pulmo.package.info import IMAGENET_MEAN, IMAGENET_STD


def grad_cam(
    model: nn.Module,
    images: np.ndarray,
    directions: np.ndarray,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    batch_size: int = 16,
) -> np.ndarray:
    """Heat maps, float32 (N, h, w) on the grid of the last feature map, from 0 to 1 within each film.

    `images` uint8 (N, S, S), not empty; `directions` (N,) is 1 for what speaks for PNEUMONIA, -1 for NORMAL. A film in
    which nothing does has a map of zeros. UserError where the network has no feature map (`find_feature_map`). No
    other thread may use the model meanwhile.
    """
    place = next(model.parameters()).device
    layer = model.get_submodule(find_feature_map(model, images[:1], mean, std))
    kept: list[Tensor] = []

    def begin_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # only what follows the feature map needs a graph
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # some networks go on in place, which a leaf of the graph forbids

    heats = []
    hook = layer.register_forward_hook(begin_graph)
    try:
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            gray = torch.from_numpy(np.ascontiguousarray(images[batch])).to(place)
            sign = torch.from_numpy(np.asarray(directions[batch], dtype=np.float32)).to(place)
            with torch.no_grad():
                logit = logit_pneumonia(model(to_input(gray, mean, std)))
                (gradient,) = torch.autograd.grad((logit * sign).sum(), kept[-1])
            heat = (gradient.mean(dim=(2, 3), keepdim=True) * kept.pop().detach()).sum(dim=1).relu()
            peak = heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            heats.append((heat / peak).cpu().numpy())
    finally:
        hook.remove()
    return np.concatenate(heats)


def find_feature_map(
    model: nn.Module, image: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> str:
    """Name of the last layer whose output still has places (N, channels, h, w); leaves the model in eval mode.

    `image` is any film, uint8 (1, S, S). UserError where the network ends in tokens instead, as transformers do.
    """
    shapes: list[tuple[str, torch.Size]] = []
    model.eval()
    gray = torch.from_numpy(np.ascontiguousarray(image)).to(next(model.parameters()).device)
    with ExitStack() as watched, torch.no_grad():
        for name, layer in model.named_modules():
            if name:
                watch = partial(_note_shape, shapes, name)
                watched.callback(layer.register_forward_hook(watch).remove)
        model(to_input(gray, mean, std))
    placed = [(name, shape) for name, shape in shapes if len(shape) > 2 and shape[2:].numel() > 1]
    if not placed or len(placed[-1][1]) != 4:
        raise UserError(
            "Grad-CAM needs a network that ends in a feature map, and this one ends in tokens",
            "choose a convolutional train.arch for heat maps",
        )
    return placed[-1][0]


def enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    """A heat map (h, w) spread over a film of `size` pixels: float32 (size, size)."""
    return cv2.resize(heat.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _note_shape(shapes: list[tuple[str, torch.Size]], name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor):
        shapes.append((name, output.shape))
