"""Grad-CAM: which places of the last feature map speak for a decision (Selvaraju et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pulmo.model.feature_map import find_feature_map
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
    outputs: list[Tensor] = []

    def begin_graph(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # only what follows the feature map needs a graph
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # some networks go on in place, which a leaf of the graph forbids

    heats = []
    hook = layer.register_forward_hook(begin_graph)
    try:
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            gray = torch.from_numpy(np.ascontiguousarray(images[batch])).to(place)
            sign = torch.from_numpy(np.asarray(directions[batch], dtype=np.float32)).to(place)
            with torch.no_grad():
                logit = logit_pneumonia(model(to_input(gray, mean, std)))
                (gradient,) = torch.autograd.grad((logit * sign).sum(), outputs[-1])
            heat = (gradient.mean(dim=(2, 3), keepdim=True) * outputs.pop().detach()).sum(dim=1).relu()
            peak = heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            heats.append((heat / peak).cpu().numpy())
    finally:
        hook.remove()
    return np.concatenate(heats)


def enlarge(heat: np.ndarray, size: int) -> np.ndarray:
    """A heat map (h, w) spread over a film of `size` pixels: float32 (size, size)."""
    return cv2.resize(heat.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
