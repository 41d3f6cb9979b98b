"""The grammar of file names: the patient and the subtype that a film's name gives away."""

import re
from pathlib import PurePosixPath

from pulmo.films.labels import CLASS_NAMES, SPLIT_NAMES

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"})
_ROBOFLOW = re.compile(r"(?<=.)(_(jpe?g|png))?\.rf\.[0-9A-Za-z]+$")
_PNEUMONIA = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(_\d+)?$")
_NORMAL = re.compile(r"^(NORMAL2-IM|IM)-(\d+)-\d{4}(-\d{4})?$")


def read_name(name: str) -> tuple[str, str]:
    """Patient key and subtype that a file name tells, in the grammar of Kermany's set and of Roboflow's copies.

    The key of a pneumonia film is (type, number): bacteria and virus count separately. The key of a normal film is
    (series, number), which groups but does not prove one patient. Any other name is its own patient, subtype unknown;
    the folders in `name` then belong to the key, for two films called 1.png in two folders need not be of one patient.
    """
    path = PurePosixPath(name)  # 1.2.840.7 has no suffix, but is a name of DICOM's kind
    stem = _ROBOFLOW.sub("", path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name)
    if found := _PNEUMONIA.match(stem):
        number, kind = int(found[1]), found[2]
        return f"{kind}-{number}", {"bacteria": "bacterial", "virus": "viral"}[kind]
    if found := _NORMAL.match(stem):
        return f"{found[1]}-{int(found[2])}", "normal"
    return str(path.with_name(stem)), "unknown"


def tell_patient(path: str, dicom: str) -> tuple[str, str]:
    """Patient key of a film that no CSV names, and what tells it; `dicom` is the hash of its PatientID, or empty.

    Viewers call what they export IM-0001-0001 as well, in a folder per patient: such a name is worth less than a
    PatientID, and counts within its folder, whatever split and class that lies in.
    """
    key, kind = read_name(path)
    if dicom and kind in ("normal", "unknown"):
        return f"dicom-{dicom}", "dicom"
    if kind == "normal":
        own = [part for part in path.split("/")[:-1] if part.lower() not in CLASS_NAMES | SPLIT_NAMES]
        return "/".join([*own, key]), "name"
    return key, "" if kind == "unknown" else "name"
