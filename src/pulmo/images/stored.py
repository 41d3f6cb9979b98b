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
from pulmo.images.header import BIG_ENDIAN

_JPEG, _JPEG_EXTENDED = (f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51"))
_ODD_SIZES = (24, 40, 48, 56)  # bits, as legal as 8, 16, 32 and 64
_CODESTREAMS = "1.2.840.10008.1.2.4."  # JPEG, JPEG-LS, JPEG 2000


def read_stored(film: Any) -> NDArray[Any]:
    """Stored integers (height, width), or (height, width, 3) where the film is in colour."""
    syntax = str(film.file_meta.TransferSyntaxUID)
    film.BitsStored = stored = int(film.get("BitsStored") or film.BitsAllocated)
    if not 0 < stored <= film.BitsAllocated:
        raise ImageError(f"{stored} bits of {film.BitsAllocated} are impossible")
    high = film.get("HighBit")
    if not isinstance(high, int) or not stored <= high + 1 <= film.BitsAllocated:
        film.HighBit = stored - 1  # as readers have it that never look at an impossible one
    if syntax.startswith(_CODESTREAMS):
        picture = _checked_codestream(film)
        if syntax in (_JPEG, _JPEG_EXTENDED):
            return _decode_jpeg(picture, film) if picture.bits == 8 else _decode_extended(picture, film)
    surplus = int(film.HighBit) + 1 - stored
    if film.BitsAllocated in _ODD_SIZES:
        pixels: NDArray[Any] = _read_bytes(film, film.BitsAllocated // 8)
    else:
        film.BitsStored += surplus  # pydicom takes the highest bit to be the last one stored
        pixels = film.pixel_array
        film.BitsStored = stored
    return pixels >> surplus if surplus and not _fits(pixels, film) else pixels


def _fits(pixels: NDArray[Any], film: Any) -> bool:
    """True where no value has more bits than are stored, which are the lowest then, whatever HighBit says."""
    low = -(2 ** (film.BitsStored - 1)) if film.PixelRepresentation else 0
    return bool(pixels.min() >= low and pixels.max() < low + 2**film.BitsStored)


def _read_bytes(film: Any, size: int) -> NDArray[np.int64]:
    """Values of so many bytes each, which no processor has, up to the highest bit."""
    if film.SamplesPerPixel != 1:
        raise ImageError(f"colour of {8 * size} bits a channel is not read", "store the film in gray")
    count = film.Rows * film.Columns
    if len(film.PixelData) < count * size:
        raise ImageError("the DICOM film has fewer pixels than its header says")
    parts = np.frombuffer(film.PixelData, np.uint8, count * size).reshape(film.Rows, film.Columns, size)
    parts = parts[..., ::-1] if str(film.file_meta.TransferSyntaxUID) == BIG_ENDIAN else parts
    values = np.zeros(parts.shape[:2], np.int64)
    for place in range(size):
        values |= parts[..., place].astype(np.int64) << 8 * place
    unused = 63 - int(film.HighBit)  # shifted out and back, with the sign where there is one
    values <<= unused
    return values >> unused if film.PixelRepresentation else (values.view("u8") >> np.uint64(unused)).view("i8")


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
