"""Gray values brought to eight bits and to a square."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.film import Gray, ImageError

BLOCK_MARGIN = 2.0  # so does averaging whole blocks of pixels, before the antialiased resize


def fit_image(gray: Gray, size: int, fit: str) -> Gray:
    """Resize gray pixels, antialiased, to uint8 (size, size).

    `squash` gives up the aspect ratio, `crop` keeps the centre square, `pad` adds black at both ends of the short side.
    """
    return fit_picture(Image.fromarray(gray), size, fit)


def fit_picture(image: Image.Image, size: int, fit: str) -> Gray:
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


def stretch(values: NDArray[Any], seen: Any = ...) -> Gray:
    """Scale pixels of any depth linearly from the 0.1th to 99.9th percentile of those `seen` (an index; all), deaf to
    dead pixels and markers."""
    if not np.isfinite(values).all():
        raise ImageError("the image holds pixels that are not finite numbers")
    black, white = np.percentile(values[seen], (0.1, 99.9))
    if black == white:
        black, white = values[seen].min(), values[seen].max()
    return scale(values, float(black), float(white))


def scale(values: NDArray[Any], black: float, white: float) -> Gray:
    if black == white:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    gray: Gray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return gray
