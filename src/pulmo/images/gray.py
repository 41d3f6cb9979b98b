"""Gray values brought to eight bits and to a square."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.film import Gray, ImageError, is_noise

BLOCK_MARGIN = 2.0  # averaging whole blocks first leaves so many pixels per pixel of the target, each way
_LEAST_LEVELS = 4
_RARE = 0.002


def fit_picture(image: Image.Image, size: int, fit: str) -> Gray:
    """Resize a gray picture, antialiased, to uint8 (size, size).

    `squash` gives up the aspect ratio, `crop` keeps the centre square, `pad` adds black at both ends of the short side.
    """
    width, height = image.size
    if fit == "squash":
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=BLOCK_MARGIN))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = (left, top, left + side, top + side)
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR, square, BLOCK_MARGIN))
    if fit == "pad":
        longest = max(width, height)
        inner = max(1, round(width * size / longest)), max(1, round(height * size / longest))
        canvas = Image.new("L", (size, size))
        corner = (size - inner[0]) // 2, (size - inner[1]) // 2
        canvas.paste(image.resize(inner, Image.Resampling.BILINEAR, reducing_gap=BLOCK_MARGIN), corner)
        return np.array(canvas)
    raise ValueError(f"fit must be squash, crop or pad, got {fit!r}")


def stretch(values: NDArray[Any]) -> Gray:
    """Scale pixels of any depth linearly from their 0.1th to their 99.9th percentile, deaf to dead pixels and markers.

    Where fewer than four gray levels are left, or a few without any shape, all is black, for that is a uniform film and
    its noise, or a mask.
    """
    if not np.isfinite(values).all():
        raise ImageError("the image holds pixels that are not finite numbers", "store the film anew")
    black, white = np.percentile(values, (0.1, 99.9))
    gray = scale(values, float(black), float(white))
    return gray if is_picture(gray, np.bincount(gray.ravel(), minlength=256)) else np.zeros_like(gray)


def is_picture(gray: Gray, histogram: NDArray[np.int64]) -> bool:
    """True where pixels have more than three gray levels, single pixels not counted, and a shape where they are few.

    However large the black ground is, what lies on it counts by its share of all pixels.
    """
    beside_commonest = np.sort(histogram)[: 1 - _LEAST_LEVELS].sum()
    if beside_commonest <= histogram.sum() * _RARE:
        return False
    return not is_noise(gray, histogram)


def scale(values: NDArray[Any], black: float, white: float) -> Gray:
    """Gray levels of `values` on the line from `black`, which becomes 0, to `white`, which becomes 255."""
    if black == white:
        return np.zeros(values.shape, np.uint8)
    # float32 holds every number of 16 bits, but not the difference of two large ones
    near = values if values.dtype.itemsize <= 2 else values - black
    scaled = near.astype(np.float32)
    scaled -= np.float32(black) if near is values else 0
    scaled *= np.float32(255 / (white - black))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    gray: Gray = scaled.astype(np.uint8)
    return gray


def to_luma(channels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Luma of 16-bit red, green and blue (height, width, 3), which keeps equal channels as they are."""
    # ITU-R 601 in 16 binary digits, as Pillow weighs 8-bit channels
    red, green, blue = (channels[..., place].astype(np.uint32) for place in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint16)
