"""A decoded film, and the error for a file that holds none."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.base.errors import UserError
from pulmo.images.limits import allow_pixels

Gray = NDArray[np.uint8]
MAX_PIXELS = 64_000_000  # four times the largest X-ray detectors
# A picture spreads its gray levels; the outermost half percent at each end may be markers and dead pixels.
_FLAT_SPAN = 8
_OUTER = 0.005
_SAMPLE = 64  # pixels each way that are looked at first, because counting all of them takes a fifth of decoding


class ImageError(UserError):
    """A film that cannot be decoded; the message is the reason in one line, without the file's name."""

    def __init__(self, message: str, hint: str = "copy the film again or store it anew") -> None:
        super().__init__(message, hint)


class DecodedFilm(NamedTuple):
    image: Image.Image  # mode L, upright, perhaps at a reduced scale
    width: int  # as stored, like height and mode
    height: int
    mode: str
    patient: str = ""
    study: str = ""
    note: str = ""  # one line about display attributes that could not be used
    not_chest: str = ""  # the sign beside the picture by which it is no frontal chest film, if any


class FittedFilm(NamedTuple):
    pixels: Gray  # (size, size), what the network sees
    note: str = ""
    not_chest: str = ""  # as in DecodedFilm
    width: int = 0  # pixels as stored; 0 where there is no file
    height: int = 0


def check_size(width: int, height: int) -> None:
    """Refuse a film that is empty or too large, before it is decoded. Raises MemoryShortage where it does not fit."""
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width} x {height} pixels", "store the film anew")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_PIXELS // 10**6} million allowed",
            "store the film at a smaller size",
        )
    allow_pixels(width * height)


def check_picture(image: Image.Image) -> None:
    """Refuse a gray image that is uniform but for fewer than 8 gray levels or 1% of its pixels."""
    sample = image.resize((_SAMPLE, _SAMPLE), Image.Resampling.NEAREST)
    if _is_flat(sample.histogram()) and _is_flat(image.histogram()):
        raise ImageError("the film carries no picture: its pixels are all alike, or nearly")


def _is_flat(histogram: list[int]) -> bool:
    below = np.cumsum(histogram)
    outer = below[-1] * _OUTER
    dark, bright = np.searchsorted(below, outer, "right"), np.searchsorted(below, below[-1] - outer)
    return bool(bright - dark < _FLAT_SPAN)
