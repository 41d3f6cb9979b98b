"""The grammar of file names: the patient and the subtype that a film's name gives away."""

import re
from pathlib import PurePosixPath

from pulmo.films.rows.labels import CLASS_NAMES, SPLIT_NAMES

IMAGE_SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".dcm", ".dicom", ".ima"}
)
_ROBOFLOW = re.compile(r"(?<=.)(_(jpe?g|png))?\.rf\.[0-9A-Za-z]+$")
_PNEUMONIA = re.compile(r"^person(\d+)_(bacteria|virus)_\d+(_\d+)?$")
_MENDELEY = re.compile(r"^(BACTERIA|VIRUS|NORMAL)-(\d+)-\d{4}$")  # as first published: patient and his film
_NORMAL = re.compile(r"^(NORMAL2-IM|IM)-(\d+)-\d{4}(-\d{4})?$")
_RANDOM_NAME = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Paths without suffix. Folders may have become part of the name: patient00001_study1_view1_frontal.
_PUBLISHED = {
    "nih": re.compile(r"(?:^|/)(000[0-3]\d{4})_\d{3}$"),  # 00000013_005: patient and follow-up
    "chexpert": re.compile(r"(?:^|[/_-])patient(\d{5,6})[/_-]study\d+[/_-]"),  # patient00001/study1/view1_frontal
    "mimic": re.compile(r"(?:^|[/_-])p(1\d{7})[/_-]s\d{8}(?:[/_-]|$)"),  # p10/p10000032/s50414267/02aa804e-...
    "kermany": re.compile(r"(?:^|/)(?:BACTERIA|VIRUS|NORMAL)-(\d+)-\d{4}$"),  # as first published, on Mendeley
    "brax": re.compile(r"(?:^|/)id_([0-9a-f-]{8,36})/Study_"),
    "ricord": re.compile(r"(?:^|/)MIDRC-RICORD-1[A-C]-((?:\d+|SITE\d+)-\d+)(?:[/_-]|$)"),  # of COVIDx: site and patient
    "bids": re.compile(r"(?:^|/)sub-([0-9A-Za-z]+)(?:[/_]|$)"),  # BIMCV and COVIDx: sub-S03044_ses-E06160_..._cr
    "openi": re.compile(
        r"(?:^|/)(?:CXR)?(\d{1,4})(?:_\d)?_IM-\d{4}-\d{4}(?:\.dcm)?$"
    ),  # CXR1000_IM-0003-1001, one report each
    "padchest": re.compile(r"(?:^|/)(\d{30,64})_[0-9a-z-]+$"),  # number of the study, two views of it
}


def read_name(name: str) -> tuple[str, str]:
    """Patient key and subtype that a file name tells, in the grammar of Kermany's set and of Roboflow's copies.

    The key of a pneumonia film is (type, number): bacteria and virus count separately. The key of a normal film is
    (series, number), which groups but does not prove one patient. Any other name is its own patient, subtype unknown;
    the folders in `name` then belong to the key, for two films called 1.png in two folders need not be of one patient.
    """
    path = _without_suffix(name)
    stem = path.rpartition("/")[2]
    if match := _PNEUMONIA.match(stem):
        number, kind = int(match[1]), match[2]
        return f"{kind}-{number}", {"bacteria": "bacterial", "virus": "viral"}[kind]
    if match := _MENDELEY.match(stem):
        return f"kermany-{match[2]}", {"BACTERIA": "bacterial", "VIRUS": "viral", "NORMAL": "normal"}[match[1]]
    if match := _NORMAL.match(stem):
        return f"{match[1]}-{int(match[2])}", "normal"
    return path, "unknown"


def read_published(path: str) -> tuple[str, str]:
    """The patient key that a path tells in the grammar of another published set, and "published"; the key of the study
    and "study" where a grammar tells no more than that; two empty texts where none fits.

    Only names that hardly anything else is called count, for a wrong patient is as bad as none: NIH's numbers begin
    with three zeros, which no date does. RSNA and VinDr name each film at random, the COVID-19 Radiography Database
    counts films: nothing in those names tells a patient.
    """
    for name, pattern in _PUBLISHED.items():
        if match := pattern.search(_without_suffix(path)):
            return f"{name}-{match[1]}", "study" if name == "padchest" else "published"
    return "", ""


def is_random_name(stem: str) -> bool:
    """True for names as RSNA gives them to films. Where such a name stands for the patient too, it tells nobody: NIH,
    where those films come from, has several of one patient."""
    return bool(_RANDOM_NAME.fullmatch(stem))


def strip_layout(path: str) -> list[str]:
    """The folders of a path that stand neither for a split nor for a class."""
    return [part for part in path.split("/")[:-1] if part.lower() not in CLASS_NAMES | SPLIT_NAMES]


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)  # 1.2.840.7 has no suffix, but is a name of DICOM's kind
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return str(path.with_name(_ROBOFLOW.sub("", stem)))
