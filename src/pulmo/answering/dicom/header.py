"""The part of a film's DICOM header that its report and picture repeat, so that they lie in the film's study."""

import io
import re
import uuid
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from pulmo.base.errors import UserError
from pulmo.images.header import DEFLATED, find_header

MAKER = "Pulmo"  # Manufacturer of reports and pictures, by which a listener knows its own
_PIXELS = 0x7FE00000
_LONGEST = 1024  # bytes of an attribute that is repeated, where DICOM allows some hundred
_INFLATED = 2**20  # bytes of a deflated header that are read
# As they stand in the film, where it has them
_SHARED = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID"),
    *("PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"),
    "StudyDescription",
)
_OF_PICTURES = ("PatientOrientation", "BurnedInAnnotation", "BodyPartExamined")
_CHEST = ("CHEST", "THORAX")
# Blank where the film lacks them, as DICOM and highdicom want them to be there
BLANKS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "StudyID"),
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_IDENTIFYING = (*_UIDS, "Modality", "Manufacturer")
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")  # more than DICOM allows, and nothing that would make two of one


class NotDicom(UserError):
    """A film that no report can refer to."""


@dataclass(frozen=True)
class FilmHeader:
    """The facts about a DICOM film that is answered."""

    sop_class: str
    sop_instance: str
    study: str
    series: str
    modality: str
    maker: str
    shared: list[RawDataElement]  # attributes of patient and study
    of_picture: list[RawDataElement]  # attributes that hold for every picture made of the film

    def evidence(self) -> Dataset:
        """The film as highdicom wants to see it: its identity, and blanks."""
        film = Dataset()
        film.SOPClassUID, film.SOPInstanceUID = self.sop_class, self.sop_instance
        film.StudyInstanceUID, film.SeriesInstanceUID = self.study, self.series
        film.Modality = self.modality
        for name in BLANKS:
            setattr(film, name, "")
        return film


def read_film_header(content: bytes) -> FilmHeader:
    """The header of a film's file. NotDicom where it has none, or lacks the UIDs that tell films apart."""
    film = _read(content)
    sop_class, instance, study, series = (_read_uid(film, name) for name in _UIDS)
    modality, maker = (_text(film, name) for name in ("Modality", "Manufacturer"))
    if not sop_class or not instance:
        raise NotDicom("the film has no SOPClassUID or no SOPInstanceUID, so that no report can refer to it")
    study, series = study or make_uid(instance, "study"), series or make_uid(instance, "series")
    is_chest = _text(film, "BodyPartExamined").upper() in _CHEST  # another part would ask for its side
    of_picture = [name for name in _OF_PICTURES if is_chest or name != "BodyPartExamined"]
    shared, own = (_select(film, names) for names in (_SHARED, of_picture))
    return FilmHeader(sop_class, instance, study, series, modality, maker, shared, own)


def put_elements(dataset: Dataset, elements: list[RawDataElement]) -> None:
    """Put a film's own bytes into what is made of it."""
    for element in elements:
        dataset[element.tag] = element


def make_uid(*parts: str) -> str:
    """A UID that is always the same for the same parts, so that what is made twice is stored once."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(('pulmo', *parts))).int}"


def to_bytes(dataset: Dataset) -> bytes:
    """The content of a DICOM file."""
    # else pydicom spells out again, in the declared character set, what was put in as bytes
    dataset.set_original_encoding(False, True, dataset._character_set)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def draw_film() -> bytes:
    """The content of the DICOM file of a film that shows nothing but a slope."""
    film, file = Dataset(), io.BytesIO()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = ComputedRadiographyImageStorage, make_uid("drawn")
    film.Rows = film.Columns = 256
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PixelRepresentation = 1, "MONOCHROME2", 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 8, 8, 7
    film.PixelData = bytes(range(256)) * 256
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _read(content: bytes) -> Dataset:
    warnings.filterwarnings("ignore", module="pydicom")  # which would print values of the film
    try:
        header = find_header(content)
        if header is None:
            raise NotDicom("the film is no DICOM file, so that no report can refer to it", "store it as DICOM")
        file = io.BytesIO(content)
        if header.syntax == DEFLATED:
            file = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[header.start :], _INFLATED))
        else:
            file.seek(header.start)
        wanted: list[Any] = [Tag(name) for name in (*_IDENTIFYING, *_SHARED, *_OF_PICTURES)]
        return read_dataset(
            file, header.implicit, header.little_endian, stop_when=lambda tag, *_: tag >= _PIXELS, specific_tags=wanted
        )
    except NotDicom:
        raise
    except UserError as error:
        raise NotDicom(error.message, error.hint) from None
    except Exception as error:  # pydicom raises almost any type on a damaged header
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotDicom(f"the film's DICOM header cannot be read: {reason}", "copy the film again") from None


def _text(film: Dataset, name: str) -> str:
    try:
        return str(film.get(name) or "").strip(" \0")
    except Exception:  # a value that is none
        return ""


def _read_uid(film: Dataset, name: str) -> str:
    """A UID, empty where the film has none or nothing like one."""
    uid = _text(film, name)
    return uid if _UID.fullmatch(uid) else ""


def _select(film: Dataset, names: Iterable[str]) -> list[RawDataElement]:
    """The bytes of attributes that are texts. They are not decoded: a report that spelt a name in another way than the
    film, because the film does not say rightly how it is spelt, would be another patient's."""
    selected = []
    for name in names:
        tag = Tag(name)
        element = film.get_item(tag)
        if isinstance(element, RawDataElement) and len(value := element.value or b"") <= _LONGEST:
            value += b" " * (len(value) % 2)
            selected.append(RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True))
    return selected
