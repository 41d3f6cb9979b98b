"""Facts about the file of a film."""

import hashlib
from dataclasses import dataclass

from PIL import Image

from pulmo.films.names import is_random_name
from pulmo.films.remote import FilmFile
from pulmo.images.decode import decode_film
from pulmo.images.dicom import hash_patient
from pulmo.images.film import ImageError
from pulmo.images.limits import name_shortage

_NEAR, _NEARLY_ALL = 16, 0.97  # gray levels, share of the pixels: a mask that was saved as JPEG has softer edges


@dataclass(frozen=True)
class FileFacts:
    """The facts of a film's file; zeros and empty texts where it cannot be decoded."""

    width: int  # pixels as stored, before any EXIF rotation (TIFF: after)
    height: int
    mode: str  # Pillow's mode or DICOM's photometric interpretation
    pixel_sha256: str  # of the upright gray pixels at full size and their shape; equal pixels in L and RGB hash alike
    patient: str = ""  # short hash of a DICOM's PatientID; empty where it names nobody
    study: str = ""  # StudyInstanceUID of a DICOM
    two_valued: bool = False  # hardly anything but two gray values, as in a mask


def inspect_file(path: FilmFile, content: bytes | None = None) -> FileFacts:
    """Decode a whole film and describe it; damaged content gives empty facts, a missing file an OSError.

    `content`: of the file, where it has been read already.
    """
    if content is None:
        with name_shortage(path):
            return inspect_file(path, path.read_bytes())
    try:
        film = decode_film(content, None)
    except ImageError:
        return FileFacts(0, 0, "", "")
    digest = hashlib.sha256("{} x {} ".format(*film.image.size).encode() + film.image.tobytes())
    patient = "" if is_random_name(path.stem) and film.patient == hash_patient(path.stem) else film.patient
    return FileFacts(
        film.width, film.height, film.mode, digest.hexdigest(), patient, film.study, _two_valued(film.image)
    )


def _two_valued(image: Image.Image) -> bool:
    """True where nearly all pixels are close to one of two gray values, the darkest and the brightest. A picture of one
    gray value is no mask."""
    counts = image.histogram()
    levels = [level for level, count in enumerate(counts) if count]
    darkest, brightest = levels[0], levels[-1]
    near = sum(counts[darkest : darkest + _NEAR]) + sum(counts[brightest - _NEAR + 1 : brightest + 1])
    return brightest - darkest > 2 * _NEAR and near >= _NEARLY_ALL * sum(counts)
