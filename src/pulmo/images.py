"""From the bytes of a film to gray pixels: one way for training, evaluation and prediction.

Pillow and pydicom decode, Pillow resizes in integer arithmetic: the same file gives the same pixels on every machine.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

Gray = NDArray[np.uint8]

MAX_PIXELS = 64_000_000  # four times the largest X-ray detectors
JPEG_MARGIN = 1.5  # a JPEG decoded at half size keeps at least so many pixels per pixel of the target, each way
BLOCK_MARGIN = 2.0  # so does averaging whole blocks of pixels, before the antialiased resize

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
_DEFLATED_DICOM = b"1.2.840.10008.1.2.1.99"
# What PatientID holds where a program wiped it; it would make one patient of a whole hospital.
_NO_ID = re.compile(r"[0x*?._\s-]*|anon(ymous|ymi[sz]ed)?|none|unknown|n/?a", re.IGNORECASE)


class ImageError(ValueError):
    """A film that cannot be decoded; the message is the reason in one line, without the file's name."""


@dataclass(frozen=True)
class FileFacts:
    """What a film's file holds; zeros and empty texts where it cannot be decoded."""

    width: int  # pixels as stored, before any EXIF rotation (TIFF: after)
    height: int
    mode: str  # Pillow's mode or DICOM's photometric interpretation
    pixel_sha256: str  # of the upright gray pixels at full size and their shape; equal pixels in L and RGB hash alike
    patient: str = ""  # short hash of a DICOM's PatientID; empty where it names nobody


class _Film(NamedTuple):
    image: Image.Image  # mode L, upright, perhaps at a reduced scale
    width: int  # as stored, like height and mode
    height: int
    mode: str
    patient: str = ""


def inspect_file(path: Path) -> FileFacts:
    """Decode a whole film and describe it; damaged content gives empty facts, a missing file an OSError."""
    try:
        film = _decode(path.read_bytes(), None)
    except ImageError:
        return FileFacts(0, 0, "", "")
    digest = hashlib.sha256("{} x {} ".format(*film.image.size).encode() + film.image.tobytes())
    return FileFacts(film.width, film.height, film.mode, digest.hexdigest(), film.patient)


def decode_gray(content: bytes | Path, size_hint: int | None = None) -> Gray:
    """Decode a film to uint8 (height, width), upright, black is 0.

    Colour becomes luma, which keeps equal channels as they are; transparency is laid over black. Deeper than 8 bits
    is scaled linearly so that the 0.1th percentile is black and the 99.9th white, because scanners rarely fill the
    range that the file could hold; a DICOM with a VOI window or lookup table is scaled by that instead.
    With `size_hint`, the side of the square that the film will be fitted to, a JPEG is decoded at half its size if
    that leaves 1.5 times the side: real films then change by less than one gray level. Raises ImageError.
    """
    return np.array(_decode(_read(content), size_hint).image)


def fit_image(gray: Gray, size: int, fit: str) -> Gray:
    """Resize gray pixels, antialiased, to uint8 (size, size).

    `squash` gives up the aspect ratio, `crop` keeps the centre square, `pad` adds black at both ends of the short side.
    """
    return _fit(Image.fromarray(gray), size, fit)


def read_image(content: bytes | Path, size: int, fit: str) -> Gray:
    """Decode a film and fit it: uint8 (size, size), what the network sees. Raises ImageError."""
    return _fit(_decode(_read(content), size).image, size, fit)


def _read(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _fit(image: Image.Image, size: int, fit: str) -> Gray:
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


def _decode(content: bytes, size_hint: int | None) -> _Film:
    if not content:
        raise ImageError("the file is empty")
    try:
        return _decode_dicom(content) if content[128:132] == b"DICM" else _decode_picture(content, size_hint)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image in JPEG, PNG, BMP, TIFF, WebP or DICOM format") from None
    except Exception as error:  # decoders raise almost any type on damaged content
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}") from error


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are more than the {MAX_PIXELS // 10**6} million allowed")


def _decode_picture(content: bytes, size_hint: int | None) -> _Film:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        (width, height), mode = image.size, image.mode
        _check_size(width, height)
        if image.format in ("JPEG", "MPO"):  # MPO: a JPEG followed by its preview
            # libjpeg takes any bytes that follow for the rest of the film
            if not content.endswith(_JPEG_END) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN):
                raise ImageError("the JPEG is truncated: its end marker is missing")
            # a quarter or an eighth would be faster still, but moves some films by more than one gray level
            shrink = 2 if size_hint and min(width, height) >= 2 * JPEG_MARGIN * size_hint else 1
            image.draft("L", (width // shrink, height // shrink))
        elif (pages := getattr(image, "n_frames", 1)) > 1:
            raise ImageError(f"holds {pages} pages; store one film per file")
        if image.format == "PNG":
            # decoding ignores the checksums, verifying ignores the pixels
            Image.open(io.BytesIO(content)).verify()
        # Pillow turns a TIFF whose zero is white the right way round, but not when it is deeper than 8 bits
        inverted = (
            mode in _DEEP_MODES
            and isinstance(image, TiffImageFile)
            and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
        )
        ImageOps.exif_transpose(image, in_place=True)
        gray = _to_gray(image)
        return _Film(ImageChops.invert(gray) if inverted else gray, width, height, mode)


def _to_gray(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_stretch(np.asarray(image)))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image if image.mode == "L" else image.convert("L")


def _decode_dicom(content: bytes) -> _Film:
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    if _DEFLATED_DICOM in content[:1024]:
        raise ImageError("deflated DICOM is not read, because it can hide any amount of data; store it uncompressed")
    film = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in film:
        raise ImageError("the DICOM file holds no image")
    width, height, mode = int(film.Columns), int(film.Rows), str(film.PhotometricInterpretation)
    _check_size(width, height)
    frames = int(film.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"the DICOM file holds {frames} frames; store one film per file")
    pixels = film.pixel_array
    if mode in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        values, padding = apply_modality_lut(pixels, film), _find_padding(pixels, film)
        if film.get("VOILUTSequence") or None not in (film.get("WindowCenter"), film.get("WindowWidth")):
            gray = _apply_voi(values, film)
        elif pixels.dtype == np.uint8 and np.array_equal(values, pixels):
            gray = pixels
        else:
            gray = _stretch(values, ~padding)
        shown = Image.fromarray(np.where(padding, 0, ~gray if mode == "MONOCHROME1" else gray).astype(np.uint8))
    elif not mode.startswith("MONOCHROME") and pixels.ndim == 3 and pixels.dtype == np.uint8:
        shown = Image.fromarray(pixels).convert("L")
    else:
        kind = f"{mode} in {film.SamplesPerPixel} channels"
        raise ImageError(f"DICOM pixels of kind {kind} are not read; store the film as MONOCHROME2 in one")
    return _Film(shown, width, height, mode, _hash_patient(str(film.get("PatientID") or "").strip()))


def _hash_patient(patient: str) -> str:
    """Enough of a hash to tell patients apart in a table that does not name them."""
    return "" if _NO_ID.fullmatch(patient) else hashlib.sha256(patient.encode()).hexdigest()[:12]


def _find_padding(pixels: NDArray[Any], film: Any) -> NDArray[np.bool_]:
    """Which stored pixels are no part of the film but fill up its rectangle: they are black, however it is shown."""
    limits = [film.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if limits[0] in (None, ""):
        return np.zeros(pixels.shape, bool)
    # 16 bits that not every writer declares with the sign that the pixels have
    ends = np.array([limit for limit in limits if limit not in (None, "")])
    ends = ends.astype(np.int16 if pixels.dtype.kind == "i" else np.uint16)
    padding: NDArray[np.bool_] = (pixels >= ends.min()) & (pixels <= ends.max())
    if padding.all():
        raise ImageError("the DICOM file holds nothing but padding")
    return padding


def _apply_voi(values: NDArray[Any], film: Any) -> Gray:
    """Scale by the first VOI lookup table or window of a DICOM dataset: its lower end is black, its upper white."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if film.get("VOILUTSequence"):
        entries, first, _ = film.VOILUTSequence[0].LUTDescriptor
        last = first + (entries or 2**16) - 1
        table = apply_voi(np.arange(first, last + 1), film)
        shown = table[np.clip(np.rint(values), first, last).astype(np.int64) - first]
        return _scale(shown, float(table.min()), float(table.max()))
    with np.errstate(over="ignore"):  # a sigmoid's far ends
        black, white = apply_windowing(np.array([-1e9, 1e9]), film)
        return _scale(apply_windowing(values, film), float(black), float(white))


def _stretch(values: NDArray[Any], seen: Any = ...) -> Gray:
    """Scale pixels of any depth linearly from the 0.1th to 99.9th percentile of those `seen` (an index; all), deaf to
    dead pixels and markers."""
    if not np.isfinite(values).all():
        raise ImageError("the image holds pixels that are not finite numbers")
    black, white = np.percentile(values[seen], (0.1, 99.9))
    if black == white:
        black, white = values[seen].min(), values[seen].max()
    return _scale(values, float(black), float(white))


def _scale(values: NDArray[Any], black: float, white: float) -> Gray:
    if black == white:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    gray: Gray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return gray
