"""The content of a film's file: read to no more than any film holds, and told by how it begins, whatever its name."""

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import IO

from pulmo.base.errors import UserError
from pulmo.films.names import IMAGE_SUFFIXES

HEAD = 1024  # bytes that are looked at
MOST_BYTES = 2**29  # of 64 million pixels, the most that are decoded, eight each
_PART = 2**20


class TooLarge(UserError):
    """A file that holds more than any film."""

    def __init__(self, name: str = "the file") -> None:
        super().__init__(
            f"{name} holds more than {MOST_BYTES // 2**20} MB, which no film does",
            "remove it, or store the film anew",
        )


def read_file(path: Path) -> bytes:
    """The content of a film's file, which may be a pipe. Raises TooLarge before it takes memory; OSError."""
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            return read_stream(file)
        if facts.st_size > MOST_BYTES:
            raise TooLarge
        return file.read()


def read_stream(stream: IO[bytes]) -> bytes:
    """All that comes from a stream whose length nobody knows. Raises TooLarge."""
    content = bytearray()
    while part := stream.read(_PART):
        content += part
        if len(content) > MOST_BYTES:
            raise TooLarge
    return bytes(content)


_PICTURES = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|BM.{4}\0\0\0\0.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP: size, nothing, offset, size of the next header
    rb"|II[\x2a\x2b]\0|MM\0[\x2a\x2b]"  # TIFF, BigTIFF
    rb"|RIFF.{4}WEBP",
    re.DOTALL,
)
# A data set without preamble begins with a short element of group 2 (meta information) or 8, in either byte order.
_BARE_DICOM = re.compile(
    rb"[\x02\x08]\0.[\0-\x20](?:(?:[A-Z]{2}.[\0-\x04])|(?:..\0\0))"
    rb"|\0[\x02\x08][\0-\x20].[A-Z]{2}[\0-\x04].",
    re.DOTALL,
)
# Storage classes of data sets that hold no film: directory, report, presentation state, document, waveform,
# segmentation, plans of radiotherapy.
_NO_IMAGE = re.compile(rb"1\.2\.840\.10008\.(?:1\.3\.10|5\.1\.4\.1\.1\.(?:88|11|104|9|66)\b|5\.1\.4\.1\.1\.481\.[^1])")


def is_film(name: str, head: bytes) -> bool:
    """True where a file with this name and these first HEAD bytes is a film, perhaps a damaged one.

    What begins as no image but is called one (an empty 1.png) is a film that preprocess rejects, so that it is missed.
    """
    if head[128:132] == b"DICM" or _BARE_DICOM.match(head):
        return not _NO_IMAGE.search(head)
    return bool(_PICTURES.match(head)) or PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


_MASK = re.compile(r"(?<![a-z])(?:lung|left|right|heart|infection)?[ _-]?(?:masks?|segmentations?|segs?)(?![a-z])")
_PICTURE_FOLDERS = {"images", "image", "imgs", "img", "films", "cxr", "cxrs", "x-rays", "xrays"}
_NUMBER = re.compile(r"(?<=[a-z])[ _-]*\d+$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def is_mask(name: str, shared_folders: int = 0) -> bool:
    """True where a folder, or the beginning or end of its own name, calls a film a mask: masks/1.png, 1_mask.png.

    The first `shared_folders` folders, which all films have in common, tell nothing, nor does one for segmentation
    with a folder of images in it: Lung Segmentation/Train/images/1.png.
    """
    *folders, file = name.split("/")
    stem = _NUMBER.sub("", file.rpartition(".")[0] or file)
    words = [_CAMEL.sub("_", word).lower() for word in (*folders[shared_folders:], stem)]
    holds_images = False
    for folder in words[-2::-1]:
        if _MASK.search(folder) and not (holds_images and "mask" not in folder):
            return True
        holds_images |= folder in _PICTURE_FOLDERS
    return any(match.start() == 0 or match.end() == len(words[-1]) for match in _MASK.finditer(words[-1]))
