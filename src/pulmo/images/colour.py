"""Colour of 16 bits a channel, of which Pillow keeps eight."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, EXTRASAMPLES, PLANAR_CONFIGURATION, TiffImageFile

from pulmo.images.film import ImageError
from pulmo.images.gray import stretch, to_luma

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS, _PNG_KIND = 24, 25  # where a PNG's header says its depth and kind
_PNG_GRAY = 0
_PREMULTIPLIED = 1
_SEPARATE_PLANES = 2


def is_deep_colour(content: bytes, image: Image.Image) -> bool:
    """True where `image`, opened from `content`, has 16 bits in each of several channels, of which one may be alpha."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE) or ()
        return len(bits) > 1 and set(bits) == {16}
    return is_deep_png(content)


def is_deep_png(content: bytes) -> bool:
    """True for a PNG of 16 bits a channel that is not gray alone."""
    if not content.startswith(_PNG) or len(content) <= _PNG_KIND:
        return False
    return content[_PNG_BITS] == 16 and content[_PNG_KIND] != _PNG_GRAY


def read_deep_colour(content: bytes, image: Image.Image) -> Image.Image:
    """The luma of deep colour over black, stretched as deep gray is, upright."""
    import cv2

    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
        raise ImageError("16-bit channels in separate planes are not read", "store the film in gray")
    pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ImageError("cannot be decoded: damaged 16-bit colour", "copy the film again or store it anew")
    gray: NDArray[np.uint16] = pixels if pixels.ndim == 2 else to_luma(pixels[..., 2::-1])
    premultiplied = (tags.get(EXTRASAMPLES) or (0,))[0] == _PREMULTIPLIED
    if pixels.ndim == 3 and pixels.shape[2] == 4 and image.has_transparency_data and not premultiplied:
        gray = ((gray.astype(np.uint32) * pixels[..., 3] + 32767) // 65535).astype(np.uint16)
    shown = Image.fromarray(stretch(gray))
    if not tags:  # a TIFF, which OpenCV turns
        shown.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(shown, in_place=True)
    return shown
