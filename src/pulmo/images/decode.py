"""From the bytes of a film to gray pixels: one way for training, evaluation and prediction.

Pillow and pydicom decode, Pillow resizes in integer arithmetic: the same file gives the same pixels on every machine.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pulmo.films.contents import TooLarge, read_file
from pulmo.images.colour import TIFF, is_deep_colour, read_deep_colour, read_rare_tiff
from pulmo.images.dicom import decode_dicom
from pulmo.images.film import MAX_PIXELS, DecodedFilm, FittedFilm, Gray, ImageError, check_picture, check_size
from pulmo.images.gray import fit_picture, stretch
from pulmo.images.guard import decode_guarded, is_foreign
from pulmo.images.header import find_header
from pulmo.images.limits import MemoryShortage, hold_pixels
from pulmo.images.subject import judge_picture

JPEG_MARGIN = 1.5  # a JPEG decoded at half size keeps at least so many pixels per pixel of the target, each way
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_SCANNED = 2_000_000_000  # pixels of all scans of a JPEG: a progressive one takes some ten to refine its pixels
_PAGES = 10
_CODED_IN_RUNS = (1, 2)  # a BMP that Pillow decodes a byte at a time
_RUNS = 16_000_000  # pixels of it
_EXIF = 2**16  # bytes; each of its entries may claim all of them
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
    film = decode_film(content, size_hint)
    check_picture(film.image)
    return np.array(film.image)


def read_image(content: bytes | Path, size: int, fit: str) -> Gray:
    """Decode a film and fit it: uint8 (size, size), what the network sees. Raises ImageError."""
    return read_film(content, size, fit).pixels


def read_film(content: bytes | Path, size: int, fit: str) -> FittedFilm:
    """Decode a film and fit it to size x size pixels, with what the file says of it: a note where it is not shown as
    its display attributes say, why it is no chest film, and its own width and height. Raises ImageError."""
    film = decode_film(content, size)
    check_picture(film.image)
    return FittedFilm(fit_picture(film.image, size, fit), film.note, film.not_chest, film.width, film.height)


def decode_film(content: bytes | Path, size_hint: int | None) -> DecodedFilm:
    """Decode a film to an upright gray picture (`decode_gray` says how), with what the file says of it. The picture may
    be blank.

    Raises ImageError, and MemoryShortage, which is no fault of the film, and names it where it is a path.
    """
    try:
        data = read_file(content) if isinstance(content, Path) else content
        return decode_guarded(data) if is_foreign(data) else decode_here(data, size_hint)
    except TooLarge as error:
        raise ImageError(error.message, error.hint) from None
    except MemoryError:
        shortage = MemoryShortage(content.stat().st_size / 1e6 if isinstance(content, Path) else len(content) / 1e6)
    except MemoryShortage as error:
        shortage = error
    raise shortage.of(content) if isinstance(content, Path) else shortage


def decode_here(content: bytes, size_hint: int | None) -> DecodedFilm:
    """Decode a film as `decode_film` does, in this process, which a hostile one may end or freeze."""
    if not content:
        raise ImageError("the file is empty", "copy the film again")
    try:
        header = find_header(content)
        return decode_dicom(content, header) if header else _decode_picture(content, size_hint)
    except (ImageError, MemoryError, MemoryShortage):
        raise
    except UnidentifiedImageError:
        if content.startswith(TIFF):
            raise ImageError("a TIFF of a kind that is not read", "store the film in gray of 8 or 16 bits") from None
        raise ImageError(
            "not an image in JPEG, PNG, BMP, TIFF, WebP or DICOM format", "store the film in one of them"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"the image has more than the {MAX_PIXELS // 10**6} million pixels allowed",
            "store the film at a smaller size",
        ) from None
    except Exception as error:  # decoders raise almost any type on damaged content
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}", "copy the film again or store it anew") from error


def _decode_picture(content: bytes, size_hint: int | None) -> DecodedFilm:
    if rare := read_rare_tiff(content):
        return DecodedFilm(rare, *rare.size, "TIFF")
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        (width, height), mode = image.size, image.mode
        check_size(width, height)
        if image.format in ("JPEG", "MPO"):  # MPO: a JPEG followed by its preview
            # libjpeg takes any bytes that follow for the rest of the film
            if not content.endswith(_JPEG_END) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
                raise ImageError("the JPEG is truncated: its end marker is missing", "copy the film again")
            # counting takes a twentieth of decoding, and what is gray and not progressive has one scan
            many = "progressive" in image.info or mode != "L"
            if many and (scans := content.count(_JPEG_SCAN)) * width * height > _SCANNED:
                raise ImageError(f"the JPEG has {scans} scans, far more than a film needs", "store the film anew")
            # a quarter or an eighth would be faster still, but moves some films by more than one gray level
            shrink = 2 if size_hint and min(width, height) >= 2 * JPEG_MARGIN * size_hint else 1
            image.draft("L", (width // shrink, height // shrink))
        elif image.format == "BMP" and image.info.get("compression") in _CODED_IN_RUNS and width * height > _RUNS:
            raise ImageError(f"a BMP coded in runs, of {width} x {height} pixels, is not read", "store it without")
        elif (pages := _count_pages(image)) > 1:
            raise ImageError(f"holds {pages} pages", "store one film per file")
        if len(image.info.get("exif", b"")) > _EXIF:
            del image.info["exif"]
        with hold_pixels(width * height):
            shown = _show_picture(content, image)
            coloured = content if image.format in ("JPEG", "MPO") and mode != "L" else b""
            return DecodedFilm(shown, width, height, mode, not_chest=judge_picture(image, coloured))


def _show_picture(content: bytes, image: Image.Image) -> Image.Image:
    """An opened picture in gray, upright."""
    if image.format == "PNG":
        # decoding ignores the checksums, verifying ignores the pixels
        Image.open(io.BytesIO(content)).verify()
    # Pillow turns a TIFF whose zero is white the right way round, but not when it is deeper than 8 bits
    inverted = (
        image.mode in _DEEP_MODES
        and isinstance(image, TiffImageFile)
        and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    )
    if is_deep_colour(content, image):
        return read_deep_colour(content, image)
    ImageOps.exif_transpose(image, in_place=True)
    gray = _to_gray(image)
    return ImageChops.invert(gray) if inverted else gray


def _count_pages(image: Image.Image) -> int:
    """Pages of a picture; of a TIFF, whose pages are a chain, no more than a few are counted."""
    if not isinstance(image, TiffImageFile):
        return int(getattr(image, "n_frames", 1))
    for page in range(1, _PAGES):
        try:
            image.seek(page)
        except EOFError:
            return page
    return _PAGES


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return Image.fromarray(stretch(np.asarray(image)))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image if image.mode == "L" else image.convert("L")
