"""Facts about the file of a film."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pulmo.images.decode import decode_film
from pulmo.images.film import ImageError


@dataclass(frozen=True)
class FileFacts:
    """What a film's file holds; zeros and empty texts where it cannot be decoded."""

    width: int  # pixels as stored, before any EXIF rotation (TIFF: after)
    height: int
    mode: str  # Pillow's mode or DICOM's photometric interpretation
    pixel_sha256: str  # of the upright gray pixels at full size and their shape; equal pixels in L and RGB hash alike
    patient: str = ""  # short hash of a DICOM's PatientID; empty where it names nobody


def inspect_file(path: Path) -> FileFacts:
    """Decode a whole film and describe it; damaged content gives empty facts, a missing file an OSError."""
    try:
        film = decode_film(path.read_bytes(), None)
    except ImageError:
        return FileFacts(0, 0, "", "")
    digest = hashlib.sha256("{} x {} ".format(*film.image.size).encode() + film.image.tobytes())
    return FileFacts(film.width, film.height, film.mode, digest.hexdigest(), film.patient)
