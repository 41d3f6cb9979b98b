"""From the bytes of a film to gray pixels: one way for training, evaluation and prediction.

Pillow and pydicom decode, Pillow resizes in integer arithmetic: the same file gives the same pixels on every machine.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pulmo.images.colour import is_deep_colour, read_deep_colour
from pulmo.images.dicom import decode_dicom
from pulmo.images.film import DecodedFilm, FittedFilm, Gray, ImageError, check_picture, check_size
from pulmo.images.gray import fit_picture, stretch
from pulmo.images.header import find_header

JPEG_MARGIN = 1.5  # a JPEG decoded at half size keeps at least so many pixels per pixel of the target, each way
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def decode_gray(content: bytes | Path, size_hint: int | None = None) -> Gray:
    """Decode a film to uint8 (height, width), upright, black is 0.

    Colour becomes luma, which keeps equal channels as they are; transparency is laid over black. Deeper than 8 bits
    is scaled linearly so that the 0.1th percentile is black and the 99.9th white, because scanners rarely fill the
    range that the file could hold; a DICOM with a VOI window or lookup table is scaled by that instead.
    With `size_hint`, the side of the square that the film will be fitted to, a JPEG is decoded at half its size if
    that leaves 1.5 times the side: real films then change by less than one gray level. Raises ImageError, also
    where the pixels are all alike, or nearly.
    """
    film = decode_film(read_content(content), size_hint)
    check_picture(film.image)
    return np.array(film.image)


def read_image(content: bytes | Path, size: int, fit: str) -> Gray:
    """Decode a film and fit it: uint8 (size, size), what the network sees. Raises ImageError."""
    return read_film(content, size, fit).pixels


def read_film(content: bytes | Path, size: int, fit: str) -> FittedFilm:
    """As `read_image`, with a note where the film is not shown as its display attributes say."""
    film = decode_film(read_content(content), size)
    check_picture(film.image)
    return FittedFilm(fit_picture(film.image, size, fit), film.note)


def read_content(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def decode_film(content: bytes, size_hint: int | None) -> DecodedFilm:
    """As `decode_gray`, of a file's content, and what the file says of the film; it may carry no picture."""
    if not content:
        raise ImageError("the file is empty", "copy the film again")
    try:
        header = find_header(content)
        return decode_dicom(content, header) if header else _decode_picture(content, size_hint)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            "not an image in JPEG, PNG, BMP, TIFF, WebP or DICOM format", "store the film in one of them"
        ) from None
    except Exception as error:  # decoders raise almost any type on damaged content
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}", "copy the film again or store it anew") from error


def _decode_picture(content: bytes, size_hint: int | None) -> DecodedFilm:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        (width, height), mode = image.size, image.mode
        check_size(width, height)
        if image.format in ("JPEG", "MPO"):  # MPO: a JPEG followed by its preview
            # libjpeg takes any bytes that follow for the rest of the film
            if not content.endswith(_JPEG_END) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
                raise ImageError("the JPEG is truncated: its end marker is missing", "copy the film again")
            # a quarter or an eighth would be faster still, but moves some films by more than one gray level
            shrink = 2 if size_hint and min(width, height) >= 2 * JPEG_MARGIN * size_hint else 1
            image.draft("L", (width // shrink, height // shrink))
        elif (pages := getattr(image, "n_frames", 1)) > 1:
            raise ImageError(f"holds {pages} pages", "store one film per file")
        if image.format == "PNG":
            # decoding ignores the checksums, verifying ignores the pixels
            Image.open(io.BytesIO(content)).verify()
        # Pillow turns a TIFF whose zero is white the right way round, but not when it is deeper than 8 bits
        inverted = (
            mode in _DEEP_MODES
            and isinstance(image, TiffImageFile)
            and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
        )
        if is_deep_colour(content, image):
            return DecodedFilm(read_deep_colour(content, image), width, height, mode)
        ImageOps.exif_transpose(image, in_place=True)
        gray = _to_gray(image)
        return DecodedFilm(ImageChops.invert(gray) if inverted else gray, width, height, mode)


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return Image.fromarray(stretch(np.asarray(image)))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image if image.mode == "L" else image.convert("L")
