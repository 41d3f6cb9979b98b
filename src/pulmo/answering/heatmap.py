"""The places on a film that speak for the network's answer, drawn on the film as it came."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.film import Gray

COLOUR = (213, 94, 0)  # vermillion, which every kind of colour vision tells from gray
STRENGTH = 0.65  # of the colour where the heat is greatest


def scale_heat(heat: NDArray[np.float32], label: str) -> NDArray[np.float32]:
    """A signed map (h, w) as what speaks for the label (NORMAL or PNEUMONIA), from 0 to 1; zeros where nothing does."""
    positive = np.maximum(heat if label == "PNEUMONIA" else -heat, 0)
    return np.asarray(positive / max(float(positive.max()), np.finfo(np.float32).tiny), dtype=np.float32)


def spread_heat(heat: NDArray[np.float32], width: int, height: int, size: int, fit: str) -> NDArray[np.float32]:
    """A map (h, w) of the fitted square of `size` pixels, spread over the film it was fitted from: (height, width).

    Undoes `pulmo.images.gray.fit_picture`. Zero where `crop` cut the film off.
    """
    image, bilinear = Image.fromarray(heat), Image.Resampling.BILINEAR
    if fit == "squash":
        return np.array(image.resize((width, height), bilinear))
    if fit == "crop":
        side = min(width, height)
        result = np.zeros((height, width), np.float32)
        top, left = (height - side) // 2, (width - side) // 2
        result[top : top + side, left : left + side] = np.array(image.resize((side, side), bilinear))
        return result
    longest = max(width, height)
    inner = [max(1, round(side * size / longest)) for side in (width, height)]
    corner = [(size - side) // 2 for side in inner]
    ends = [start + side for start, side in zip(corner, inner, strict=True)]
    box = [edge * cells / size for edge, cells in zip((*corner, *ends), image.size * 2, strict=True)]
    return np.array(image.resize((width, height), bilinear, (box[0], box[1], box[2], box[3])))


def lay_heat(gray: Gray, heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A film, uint8 (height, width), with its heat, float32 (height, width) from 0 to 1, over it in colour."""
    share = (STRENGTH * heat)[:, :, None]
    mixed = gray[:, :, None] * (1 - share) + np.array(COLOUR, np.float32) * share
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def draw_heat(gray: Gray, heat: NDArray[np.float32]) -> bytes:
    """`lay_heat` as a PNG."""
    content = io.BytesIO()
    Image.fromarray(lay_heat(gray, heat)).save(content, "PNG", compress_level=1)
    return content.getvalue()
