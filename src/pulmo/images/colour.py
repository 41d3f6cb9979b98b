"""Colour of 16 bits a channel, of which Pillow keeps eight, and TIFF of kinds that Pillow does not know."""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from pulmo.images.film import ImageError, check_size
from pulmo.images.gray import stretch, to_luma

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS, _PNG_KIND = 24, 25  # where a PNG's header says its depth and kind
_PNG_GRAY = 0
_PREMULTIPLIED = 1
_SEPARATE_PLANES = 2
_SIGNED = 2
_WHITE_IS_ZERO, _SEPARATED = 0, 5  # the second: into printing inks
Tags = Any  # of Pillow, by their numbers


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
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _SEPARATED:
        raise ImageError("CMYK of 16 bits is not read", "store the film in gray")
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


def read_rare_tiff(content: bytes) -> Image.Image | None:
    """The luma of a TIFF that Pillow does not open, or reads wrongly, stretched as deep gray is, upright; None for all
    others."""
    if not content.startswith(TIFF[:2]) or (tags := _read_tags(content)) is None or not _is_rare(tags, content):
        return None
    import cv2

    check_size(int(tags.get(IMAGEWIDTH, 0)), int(tags.get(IMAGELENGTH, 0)))
    pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        return None
    gray = pixels if pixels.ndim == 2 else pixels[..., ::-1].astype(float) @ (0.299, 0.587, 0.114)
    shown = Image.fromarray(stretch(gray))
    return ImageOps.invert(shown) if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else shown


def _read_tags(content: bytes) -> Tags | None:
    """The tags of a TIFF of one page; None of any other, which is left to Pillow."""
    try:
        file = io.BytesIO(content)
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
    except (SyntaxError, struct.error, OSError, ValueError, TypeError):
        return None
    return None if tags.next else tags


def _is_rare(tags: Tags, content: bytes) -> bool:
    """True for channels of 32 or 64 bits, but for plain gray of 32; for big-endian gray of 16 bits whose zero is white;
    for signed bytes."""
    bits, white = tags.get(BITSPERSAMPLE) or (1,), tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    if len(bits) == 1:
        signed, big_endian = (tags.get(SAMPLEFORMAT) or (1,))[0] == _SIGNED, content.startswith(b"M")
        return (
            bits[0] == 64 or (bits[0] == 8 and signed) or (white and (bits[0] == 32 or (bits[0] == 16 and big_endian)))
        )
    return len(bits) == 3 and bits[0] > 16 and tags.get(PLANAR_CONFIGURATION) != _SEPARATE_PLANES
