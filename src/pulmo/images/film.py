"""A decoded film, and the error for a file that holds none."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Gray = NDArray[np.uint8]
MAX_PIXELS = 64_000_000  # four times the largest X-ray detectors


class ImageError(ValueError):
    """A film that cannot be decoded; the message is the reason in one line, without the file's name."""


class DecodedFilm(NamedTuple):
    image: Image.Image  # mode L, upright, perhaps at a reduced scale
    width: int  # as stored, like height and mode
    height: int
    mode: str
    patient: str = ""
    study: str = ""


def check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are more than the {MAX_PIXELS // 10**6} million allowed")
