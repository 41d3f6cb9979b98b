"""The stored values of a DICOM film, whatever way its bits are laid out or compressed."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.codestream import Codestream, read_codestream
from pulmo.images.film import ImageError

_JPEG, _JPEG_EXTENDED = (f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51"))
_CODESTREAMS = "1.2.840.10008.1.2.4."  # JPEG, JPEG-LS, JPEG 2000


def read_stored(film: Any) -> NDArray[Any]:
    """Stored integers (height, width), or (height, width, 3) where the film is in colour."""
    syntax = str(film.file_meta.TransferSyntaxUID)
    stored = int(film.BitsStored)
    if film.get("HighBit") in (None, ""):
        film.HighBit = stored - 1
    if not 0 < stored <= film.HighBit + 1 <= film.BitsAllocated:
        raise ImageError(f"{stored} bits below bit {film.HighBit} of {film.BitsAllocated} are impossible")
    if syntax.startswith(_CODESTREAMS):
        picture = _checked_codestream(film)
        if syntax in (_JPEG, _JPEG_EXTENDED):
            return _decode_jpeg(picture, film) if picture.bits == 8 else _decode_extended(picture, film)
    # pydicom takes the highest bit to be the last one stored
    surplus = int(film.HighBit) + 1 - stored
    film.BitsStored = stored + surplus
    pixels: NDArray[Any] = film.pixel_array
    film.BitsStored = stored
    return pixels >> surplus if surplus else pixels


def _checked_codestream(film: Any) -> Codestream:
    """The compressed pixels, put in place of what surrounds them, where they are of the size that the header says."""
    from pydicom.encaps import encapsulate, get_frame

    picture = read_codestream(get_frame(film.PixelData, 0, number_of_frames=1))
    if (picture.width, picture.height) != (film.Columns, film.Rows):
        size = f"{picture.width} x {picture.height}"
        raise ImageError(f"the compressed pixels are {size}, the header says {film.Columns} x {film.Rows}")
    if picture.channels != film.SamplesPerPixel or not 0 < picture.bits <= film.BitsAllocated:
        raise ImageError(
            f"the compressed pixels have {picture.channels} channels of {picture.bits} bits, "
            f"the header says {film.SamplesPerPixel} of {film.BitsAllocated}"
        )
    film.PixelData = encapsulate([picture.data], has_bot=False)
    return picture


def _decode_jpeg(picture: Codestream, film: Any) -> NDArray[Any]:
    with Image.open(io.BytesIO(picture.data), formats=("JPEG",)) as image:
        coloured = image.mode == "RGB"
        if coloured and film.PhotometricInterpretation == "RGB" and "adobe_transform" not in image.info:
            image.draft("YCbCr", image.size)  # the channels as they lie in the file
        pixels = np.asarray(image)
    if pixels.ndim != (3 if coloured else 2):
        raise ImageError(f"JPEG pixels of kind {image.mode} are not read")
    return pixels


def _decode_extended(picture: Codestream, film: Any) -> NDArray[Any]:
    """JPEG Extended of 12 bits, which of all decoders here GDCM's own reader alone reads, and from a file alone."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "film.dcm")
        film.is_little_endian, film.is_implicit_VR = True, False
        film.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        if not reader.Read():
            raise ImageError("JPEG Extended that GDCM cannot read")
        buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(buffer, "<u2", film.Rows * film.Columns).reshape(film.Rows, film.Columns)
