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
_BLOCK, _FEW_LEVELS, _LEAST_SHAPE = 8, 64, 0.1  # pixels each way; of 256; share of the variance that blocks keep
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
    """Refuse a gray image that is uniform but for fewer than 8 gray levels, 1% of its pixels, or noise."""
    sample = image.resize((_SAMPLE, _SAMPLE), Image.Resampling.NEAREST)
    if np.count_nonzero(sample.histogram()) > _FEW_LEVELS:
        return
    histogram = np.array(image.histogram())
    if _is_flat(histogram) or is_noise(np.asarray(image), histogram):
        raise ImageError("the film carries no picture: its pixels are all alike, or nearly")


def is_noise(gray: Gray, histogram: NDArray[np.int64]) -> bool:
    """True where a few gray levels have no shape, for blocks of pixels are all alike on average: what sensors give
    without a film."""
    height, width = (side // _BLOCK for side in gray.shape)
    if not height * width or np.count_nonzero(histogram) > _FEW_LEVELS:
        return False
    levels, shares = np.arange(256), histogram / histogram.sum()
    variance = (shares * (levels - (shares * levels).sum()) ** 2).sum()
    blocks = gray[: height * _BLOCK, : width * _BLOCK].reshape(height, _BLOCK, width, _BLOCK).mean(axis=(1, 3))
    return bool(blocks.var() < _LEAST_SHAPE * variance)


def _is_flat(histogram: NDArray[np.int64]) -> bool:
    below = np.cumsum(histogram)
    outer = below[-1] * _OUTER
    dark, bright = np.searchsorted(below, outer, "right"), np.searchsorted(below, below[-1] - outer)
    return bool(bright - dark < _FLAT_SPAN)
