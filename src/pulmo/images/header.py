"""The beginning and the encoding of the data set of a DICOM file, told by its content alone."""

import struct
from typing import NamedTuple

from pulmo.images.film import ImageError

IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT"),
    *(b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
)
_META, _IDENTIFYING = 2, 8  # groups that a file begins with


class Header(NamedTuple):
    start: int  # where the data set begins
    syntax: str  # UID of the transfer syntax
    implicit: bool

    @property
    def little_endian(self) -> bool:
        return self.syntax != BIG_ENDIAN


def find_header(content: bytes) -> Header | None:
    """The header of a DICOM file with or without preamble and meta information; None if `content` is no DICOM."""
    start = 132 if content[128:132] == b"DICM" else 0
    group, _, _, size = _read_tag(content, start)
    if group == _META:
        syntax, start = _read_meta(content, start)
        return Header(start, syntax, _is_implicit(content, start, syntax))
    explicit = content[start + 4 : start + 6] in (*_LONG, *_SHORT)
    if explicit and content[start : start + 2] == bytes([0, _IDENTIFYING]):
        return Header(start, BIG_ENDIAN, False)
    if start or (group == _IDENTIFYING and (explicit or size <= len(content) - 8)):
        return Header(start, EXPLICIT if explicit else IMPLICIT, not explicit)
    return None


def _is_implicit(content: bytes, start: int, syntax: str) -> bool:
    """True where lengths follow tags directly, which not every writer declares rightly."""
    if syntax == BIG_ENDIAN or start >= len(content):
        return False
    return content[start + 4 : start + 6] not in (*_LONG, *_SHORT)


def _read_meta(content: bytes, place: int) -> tuple[str, int]:
    """The transfer syntax that the meta information names, and where it ends."""
    syntax = ""
    while True:
        group, number, head, size = _read_tag(content, place)
        if group != _META:
            return syntax or EXPLICIT, place
        if place + head + size > len(content):
            raise ImageError("the DICOM file is truncated in its header")
        if number == 0x10:
            syntax = content[place + head : place + head + size].decode("ascii", "replace").strip(" \0")
        place += head + size


def _read_tag(content: bytes, place: int) -> tuple[int, int, int, int]:
    """Group and number of the element at `place`, the size of its head and of its value; zeros at the end."""
    head = content[place : place + 12].ljust(12, b"\0")
    group, number, kind, short = struct.unpack("<HH2sH4x", head)
    if kind in _LONG:
        return group, number, 12, int.from_bytes(head[8:], "little")
    if kind in _SHORT:
        return group, number, 8, short
    return group, number, 8, int.from_bytes(head[4:8], "little")
