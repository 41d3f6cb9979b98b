"""DICOM to gray pixels, as a viewer shows them."""

import hashlib
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulmo.images.display import show
from pulmo.images.film import DecodedFilm, ImageError, check_size
from pulmo.images.gray import scale, stretch, to_luma
from pulmo.images.header import DEFLATED, Header
from pulmo.images.palette import apply_palette
from pulmo.images.stored import read_stored
from pulmo.images.subject import judge_header, judge_picture

# What PatientID holds where a program wiped it; it would make one patient of a whole hospital.
_NO_ID = re.compile(r"[0x*?._\s-]*|anon(ymous|ymi[sz]ed)?|none|unknown|n/?a", re.IGNORECASE)
# What a reader without these attributes assumes; films older than DICOM 3 lack them.
_ASSUMED = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 0,
    "PlanarConfiguration": 0,
}
_GRAY_MODES = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")  # one channel each


def decode_dicom(content: bytes, header: Header) -> DecodedFilm:
    if header.syntax == DEFLATED:
        raise ImageError("deflated DICOM is not read, because it can hide any amount of data", "store it uncompressed")
    film = _read_dataset(content, header)
    if "PixelData" not in film:
        raise ImageError("the DICOM file holds no image", "remove the file or store the film anew")
    if lacking := [name for name in ("Columns", "Rows") if film.get(name) in (None, "")]:
        raise ImageError(f"the DICOM header lacks {' and '.join(lacking)}")
    width, height, mode = int(film.Columns), int(film.Rows), str(film.PhotometricInterpretation)
    check_size(width, height)
    frames = int(film.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"the DICOM file holds {frames} frames", "store one film per file")
    image, colours, note = _to_pictures(film, mode)
    not_chest = judge_header(film) or judge_picture(colours)
    patient, study = (str(film.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID"))
    return DecodedFilm(image, width, height, mode, hash_patient(patient), study, note, not_chest)


def _read_dataset(content: bytes, header: Header) -> Any:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    file = io.BytesIO(content)
    file.seek(header.start)
    film = read_dataset(file, header.implicit, header.little_endian)
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = UID(header.syntax)
    for name, value in _ASSUMED.items():
        if film.get(name) in (None, ""):
            setattr(film, name, value)
    film.PhotometricInterpretation = str(film.PhotometricInterpretation).strip().upper()
    return film


def _to_pictures(film: Any, mode: str) -> tuple[Image.Image, Image.Image, str]:
    """The film in gray, in its colours where it has any, and a note on its display."""
    known = mode in _GRAY_MODES if film.SamplesPerPixel == 1 else not mode.startswith(("MONOCHROME", "PALETTE"))
    pixels: NDArray[Any] = read_stored(film) if known else np.empty(0)
    if pixels.ndim == 2 and mode == "PALETTE COLOR":
        pixels = apply_palette(pixels, film)
    if pixels.ndim == 2:
        gray, note = show(pixels, film)
        return (image := Image.fromarray(gray)), image, note
    if pixels.dtype == np.uint8:
        colours = Image.fromarray(pixels)
        return colours.convert("L"), colours, ""
    if pixels.dtype == np.uint16:
        colours = Image.fromarray(scale(pixels, 0, float(pixels.max())))
        return Image.fromarray(stretch(to_luma(pixels))), colours, ""
    kind = f"{mode} in {film.SamplesPerPixel} channels"
    raise ImageError(f"DICOM pixels of kind {kind} are not read", "store the film as MONOCHROME2 in one channel")


def hash_patient(patient: str) -> str:
    """Enough of a hash to tell patients apart in a table that does not name them."""
    return "" if _NO_ID.fullmatch(patient) else hashlib.sha256(patient.encode()).hexdigest()[:12]
