"""Gray films in, log-odds of PNEUMONIA out."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulmo.base.cores import give_way
from pulmo.films.rows.stack import Films
from pulmo.model.device import choose_device, choose_precision
from pulmo.package.inference import check_logits
from pulmo.package.info import IMAGENET_MEAN, IMAGENET_STD, TTA_VIEWS


class Preparation(NamedTuple):
    """The preparation of gray films before the network sees them."""

    mean: Sequence[float] = IMAGENET_MEAN  # per channel, of values 0..1
    std: Sequence[float] = IMAGENET_STD
    tta_views: int = 1  # copies of a film, the first of TTA_VIEWS, whose mean log-odds count


AS_IMAGENET = Preparation()


def to_input(gray: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """Gray values 0..255 (N, S, S), integer or float, as normalised float32 (N, 3, S, S) in channels-last memory."""
    scale, shift = scale_and_shift(mean, std).to(gray.device, non_blocking=True)
    inputs: Tensor = gray.float().unsqueeze(-1) * scale
    return inputs.sub_(shift).permute(0, 3, 1, 2)


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The factor of gray values 0..255 for each channel, and what is subtracted from the product: (2, channels)."""
    return torch.tensor(
        [[1 / (255 * spread) for spread in std], [centre / spread for centre, spread in zip(mean, std, strict=True)]]
    )


def logit_pneumonia(outputs: Tensor) -> Tensor:
    """Log-odds of PNEUMONIA (N,), float32: the output of one neuron, or the difference of two (NORMAL, PNEUMONIA)."""
    outputs = outputs.float()
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]


@torch.no_grad()  # inference mode would forbid gradients for good to the parameters that are moved in here
def predict_logits(
    model: nn.Module,
    images: Films,
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "auto",
    preparation: Preparation = AS_IMAGENET,
) -> np.ndarray:
    """Log-odds of PNEUMONIA, float32 (N,), of gray images uint8 (N, S, S), which may be memory-mapped.

    The mean over the views of the `preparation`. The model is moved to the device and left in eval mode.
    """
    place = choose_device(device)
    bf16 = choose_precision(precision, place) == "bf16"
    model.to(place).to(memory_format=torch.channels_last).eval()
    logits = np.empty(len(images), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        give_way()
        gray = torch.from_numpy(np.array(images[start : start + batch_size])).to(place)
        views = []
        for mirrored, degrees, zoom in TTA_VIEWS[: preparation.tta_views]:
            inputs = to_input(move_films(gray, mirrored, degrees, zoom), preparation.mean, preparation.std)
            with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
                views.append(logit_pneumonia(model(inputs)))
        logits[start : start + batch_size] = torch.stack(views).mean(dim=0).cpu().numpy()
    check_logits(logits)
    return logits


def move_films(gray: Tensor, mirrored: bool, degrees: float, zoom: float) -> Tensor:
    """Gray images (N, S, S) mirrored, turned about their middle and enlarged; what comes from outside continues the
    edge. Float32, but for images that stay as they are."""
    if mirrored:
        gray = gray.flip(-1)
    if not degrees and zoom == 1:
        return gray
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = torch.tensor([[[cos, -sin, 0], [sin, cos, 0]]], device=gray.device)
    grid = F.affine_grid(matrix, [1, 1, *gray.shape[1:]], align_corners=False).expand(len(gray), -1, -1, -1)
    moved = F.grid_sample(gray.float().unsqueeze(1), grid, align_corners=False, padding_mode="border")
    return moved.squeeze(1)
