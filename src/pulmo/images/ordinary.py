"""JPEG and PNG files told by their structure: ordinary ones hold nothing that could make their decoder go wrong.

The walk is stricter than the decoder. Whatever it does not expect is not ordinary.
"""

from collections.abc import Iterator

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SEGMENTS = 300  # before the pixels of a JPEG; a film has some ten, a colour profile up to 255
_CHUNKS, _OTHER_CHUNKS = 50_000, 100  # of a PNG in all, and of those that are no pixels
_TEXT = 2**16  # bytes of EXIF, of texts and of profiles; packed ones grow a thousandfold
_EXIF_SEGMENT, _SCAN = 0xE1, 0xDA
# no length follows the first of these markers; the others code pixels in ways that hardly any writer knows
_UNEXPECTED = {0x00, 0x01, 0xFF, *range(0xD0, 0xDA), 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_GROWING = (b"eXIf", b"iCCP", b"iTXt", b"tEXt", b"zTXt")
_HIDDEN_EXIF = b"Raw profile type exif"
_ANIMATED = (b"acTL", b"fcTL", b"fdAT")


def is_ordinary(content: bytes) -> bool:
    """True for a JPEG or PNG with as few parts as films have; one that ends early is as ordinary as what is there."""
    if content.startswith(_JPEG):
        return _is_ordinary_jpeg(content)
    return content.startswith(_PNG) and _is_ordinary_png(content)


def _is_ordinary_jpeg(content: bytes) -> bool:
    place, exif = 2, 0
    for _ in range(_SEGMENTS):
        head = content[place : place + 4]
        if len(head) < 4 or head[1] == _SCAN:
            return True
        size = int.from_bytes(head[2:])
        if head[0] != 0xFF or head[1] in _UNEXPECTED or size < 2:
            return False
        exif += size if head[1] == _EXIF_SEGMENT else 0
        if exif > _TEXT:
            return False
        place += 2 + size
    return False


def _is_ordinary_png(content: bytes) -> bool:
    others = text = 0
    for number, (kind, start, size) in enumerate(_read_chunks(content)):
        if kind == b"IDAT":
            if number > _CHUNKS:
                return False
            continue
        others += 1
        text += size if kind in _GROWING else 0
        hidden = kind in _GROWING and content.startswith(_HIDDEN_EXIF, start)
        if others > _OTHER_CHUNKS or text > _TEXT or hidden or kind in _ANIMATED:
            return False
    return True


def _read_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and size of every chunk of a PNG, up to its end."""
    place = len(_PNG)
    while len(head := content[place : place + 8]) == 8 and head[4:] != b"IEND":
        size = int.from_bytes(head[:4])
        yield head[4:], place + 8, size
        place += 12 + size
