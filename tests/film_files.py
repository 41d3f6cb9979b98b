"""Films in memory, as tests need them: pixels that are known, in the file format that is asked for."""

import io
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from pulmo.images.film import Gray

# every gray level occurs, the extremes in more than a thousandth of the pixels; no symmetry; smooth enough for JPEG
GRAY = (np.arange(240)[:, None] * 0.45 + np.arange(320)[None] * 0.55 - 10).clip(0, 255).astype(np.uint8)
ODD = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)


def encode(pixels: Gray | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def dicom(pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, encoded: bytes | None = None, **tags: Any) -> bytes:
    """A DICOM file in memory; `tags` overrides any attribute, None removes it."""
    film = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    film.file_meta.TransferSyntaxUID = syntax
    film.SOPClassUID, film.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.1"), generate_uid()
    film.Rows, film.Columns = pixels.shape[:2]
    film.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    film.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = film.BitsStored = pixels.dtype.itemsize * 8
    film.HighBit = film.BitsStored - 1
    film.PixelRepresentation = int(pixels.dtype.kind == "i")
    film.PixelData = pixels.tobytes() if encoded is None else encapsulate([encoded])
    for name, value in tags.items():
        if value is None:
            delattr(film, name)
        elif isinstance(value, DataElement):
            film.add(value)
        else:
            setattr(film, name, value)
    file = io.BytesIO()
    film.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


TWELVE = GRAY.astype(np.uint16) * 16
TWELVE_BITS = {"BitsStored": 12, "HighBit": 11}
