"""A film as a picture, with the places in colour that speak for the network's answer."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.answering.predictor import Predictor
from pulmo.images.decode import decode_gray
from pulmo.images.film import FittedFilm, Gray

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


def draw_heat(
    predictor: Predictor, film: FittedFilm, gray: Gray, label: str | None, cover: bool = False
) -> NDArray[np.uint8] | None:
    """A film, decoded to `gray` (height, width), as uint8 (height, width, 3), with what speaks for its label in colour.

    None where it has no label, or the network no map of its own and places are not to be covered in turn, which takes
    as long as 50 films.
    """
    if label is None:
        return None
    if (maps := predictor.network.explain(film.pixels[None])) is not None:
        heat = maps[0]
    elif cover:
        heat = predictor.network.occlude(film.pixels)
    else:
        return None
    height, width = gray.shape
    return lay_heat(gray, spread_heat(scale_heat(heat, label), width, height, predictor.info.size, predictor.info.fit))


def decode_small(content: bytes, side: int) -> Gray:
    """A film's file decoded to gray pixels, made smaller where a side is longer than `side`."""
    picture = Image.fromarray(decode_gray(content))
    picture.thumbnail((side, side))
    return np.asarray(picture)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture (height, width), or (height, width, 3) in colour, as a PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()
