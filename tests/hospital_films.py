"""DICOM films with the header that a hospital gives them, for tests of what is made from it."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSNearLossless,
)
from toy_dicom import make_dataset

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
HEADER = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller^Jörg",
    "PatientID": "4711",
    "PatientBirthDate": "20200131",
    "PatientSex": "M",
    "StudyInstanceUID": STUDY,
    "SeriesInstanceUID": SERIES,
    "StudyDate": "20240229",
    "StudyTime": "101500",
    "StudyID": "7",
    "AccessionNumber": "A-123",
    "ReferringPhysicianName": "Meier^Eva",
    "StudyDescription": "Thorax a.p.",
    "Modality": "CR",
    "BodyPartExamined": "CHEST",
    "PatientOrientation": ["L", "F"],
    "Manufacturer": "Detector Works",
    "InstanceNumber": 1,
}
LOSSES: dict[UID, dict[str, Any]] = {JPEG2000: {"j2k_psnr": [50]}, JPEGLSNearLossless: {"jls_error": 2}}
PIXELS = (np.arange(96)[:, None] * 1.4 + np.arange(80)[None] * 1.5).clip(0, 255).astype(np.uint8)


def hospital_film(pixels: np.ndarray = PIXELS, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """The content of a DICOM file of gray pixels uint8 (height, width); a tag of None is left out."""
    film = FileDataset("", make_dataset(pixels), file_meta=FileMetaDataset(), preamble=bytes(128))
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed else syntax
    film.SOPClassUID = ComputedRadiographyImageStorage
    for name, value in (HEADER | tags).items():
        if value is not None:
            setattr(film, name, value)
        elif name in film:
            delattr(film, name)
    film.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    if syntax.is_compressed:
        film.compress(syntax, generate_instance_uid=False, **LOSSES.get(syntax, {}))
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()
