"""Size, channels and depth that the compressed pixels of a DICOM film declare, read before a decoder believes them."""

import struct
from typing import NamedTuple

from pulmo.images.film import ImageError

_SOI, _JPEG2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
# start of frame: every coding of JPEG but DHT, JPG and DAC, and JPEG-LS
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_SCAN, _END = 0xDA, 0xD9


class Codestream(NamedTuple):
    data: bytes  # without what surrounds it
    width: int
    height: int
    channels: int
    bits: int


def read_codestream(data: bytes) -> Codestream:
    """Size and depth of a JPEG, JPEG-LS or JPEG 2000 picture. Raises ImageError."""
    if data.startswith(_SOI):
        return _read_jpeg(data)
    # a JP2 file holds the codestream in a box; its other boxes say nothing that DICOM does not
    if (start := data.find(_JPEG2000)) >= 0:
        return _read_jpeg2000(data[start:])
    raise ImageError("the compressed pixels are no JPEG, JPEG-LS or JPEG 2000")


def _read_jpeg(data: bytes) -> Codestream:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        if marker in (_SCAN, _END):
            break
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _FRAMES and place + 10 <= len(data):
            bits, height, width, channels = struct.unpack(">BHHB", data[place + 4 : place + 10])
            return Codestream(data, width, height, channels, bits)
        if size < 2:
            break
        place += 2 + size
    raise ImageError("the compressed pixels have no header")


def _read_jpeg2000(data: bytes) -> Codestream:
    if len(data) < 43:
        raise ImageError("the compressed pixels have no header")
    right, bottom, left, top, tile_width, tile_height, _, _, channels = struct.unpack(">8IH", data[8:42])
    if not (tile_width and tile_height) or -(-right // tile_width) * -(-bottom // tile_height) > 65535:
        raise ImageError("the compressed pixels are damaged: their tiles are impossible")
    return Codestream(data, right - left, bottom - top, channels, (data[42] & 0x7F) + 1)
