"""DICOM to gray pixels, as a viewer shows them."""

import hashlib
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.film import DecodedFilm, Gray, ImageError, check_size
from pulmo.images.gray import scale, stretch

_DEFLATED_DICOM = b"1.2.840.10008.1.2.1.99"
# What PatientID holds where a program wiped it; it would make one patient of a whole hospital.
_NO_ID = re.compile(r"[0x*?._\s-]*|anon(ymous|ymi[sz]ed)?|none|unknown|n/?a", re.IGNORECASE)


def decode_dicom(content: bytes) -> DecodedFilm:
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    if _DEFLATED_DICOM in content[:1024]:
        raise ImageError("deflated DICOM is not read, because it can hide any amount of data; store it uncompressed")
    film = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in film:
        raise ImageError("the DICOM file holds no image")
    width, height, mode = int(film.Columns), int(film.Rows), str(film.PhotometricInterpretation)
    check_size(width, height)
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
            gray = stretch(values, ~padding)
        shown = Image.fromarray(np.where(padding, 0, ~gray if mode == "MONOCHROME1" else gray).astype(np.uint8))
    elif not mode.startswith("MONOCHROME") and pixels.ndim == 3 and pixels.dtype == np.uint8:
        shown = Image.fromarray(pixels).convert("L")
    else:
        kind = f"{mode} in {film.SamplesPerPixel} channels"
        raise ImageError(f"DICOM pixels of kind {kind} are not read; store the film as MONOCHROME2 in one")
    study = str(film.get("StudyInstanceUID") or "").strip()
    return DecodedFilm(shown, width, height, mode, hash_patient(str(film.get("PatientID") or "").strip()), study)


def hash_patient(patient: str) -> str:
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
        return scale(shown, float(table.min()), float(table.max()))
    with np.errstate(over="ignore"):  # a sigmoid's far ends
        black, white = apply_windowing(np.array([-1e9, 1e9]), film)
        return scale(apply_windowing(values, film), float(black), float(white))
