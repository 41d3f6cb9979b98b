"""Names of the members of archives: their encodings, their separators, and what no name may be."""

import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterable
from contextlib import suppress

AS_BYTES = "bytes"  # in place of an encoding: names as they are written, in Python's escapes
MOST_FOLDERS = 50
_LONGEST, _LONGEST_PART = 1000, 255  # bytes; systems allow few more, counted from their root
# Of DOS, Windows, older Unix and older Macs; in falling order of how likely they are where two fit.
_LEGACY = (
    *("cp437", "cp850", "cp1252", "cp932", "gb18030", "big5", "cp949", "cp1250", "cp852", "cp866", "cp1251", "cp1253"),
    *("cp737", "cp1254", "cp857", "cp1255", "cp862", "cp1256", "cp720", "cp1257", "cp775", "cp1258", "cp874", "euc_jp"),
    *("koi8_r", "koi8_u", "iso8859_2", "iso8859_5", "iso8859_7", "iso8859_9", "mac_roman", "mac_cyrillic"),
)
_UTF8_NAME = 0x800  # flag of a zip's member


def is_hidden(name: str) -> bool:
    """True where a path lies in what macOS and others leave behind: names with a leading dot, __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def leaves_folder(name: str) -> bool:
    """True where a relative path leads out of the folder that it is relative to."""
    return bool(name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"))


def name_problem(name: str) -> str:
    """The reason why a relative path cannot be a film's path here, or an empty text. Another name is the cure."""
    if "\\" in name or any(character < " " for character in name):
        return "has a backslash or a control character in its name"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "has a name that is not Unicode"
    if name.count("/") > MOST_FOLDERS:
        return f"lies more than {MOST_FOLDERS} folders deep"
    if len(name.encode()) > _LONGEST or max(len(part.encode()) for part in name.split("/")) > _LONGEST_PART:
        return f"has a name of more than {_LONGEST_PART} bytes, or {_LONGEST:,} with its folders"
    return ""


def with_slashes(name: str, guessed: bool) -> str:
    """The name with slashes for backslashes, the separator of Windows' own tools.

    In a name of unknown encoding a backslash may be half of the letter before it (as in Shift JIS and GBK): behind what
    is no ASCII it stays, and the name is refused.
    """
    if guessed:
        return re.sub(r"(?<![^\x00-\x7f])\\", "/", name)
    return name.replace("\\", "/")


def zip_name(info: zipfile.ZipInfo, encoding: str) -> tuple[str, bool]:
    """The name of a member and whether its encoding is a guess: zipfile reads what is not declared as code page 437."""
    if info.flag_bits & _UTF8_NAME or info.filename.isascii():
        return info.filename, False
    try:
        written = info.filename.encode("cp437")
    except UnicodeEncodeError:  # a later zipfile has read the extra field itself
        return info.filename, False
    declared = _unicode_path(info.extra, written)
    for candidate in filter(None, ("utf-8" if declared else "", encoding, "utf-8")):
        with suppress(UnicodeDecodeError):
            errors = "surrogateescape" if candidate == AS_BYTES else "strict"
            return (declared or written).decode("utf-8" if candidate == AS_BYTES else candidate, errors), False
    return info.filename, True


def _unicode_path(extra: bytes, written: bytes) -> bytes:
    """The name in UTF-8 that Info-ZIP and others store beside one in a legacy encoding, or nothing."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and field[1:5] == struct.pack("<L", zlib.crc32(written)):
            return field[5:]
    return b""


def tar_name(name: str, encoding: str) -> tuple[str, bool]:
    """The name of a member, read as UTF-8 so far, and whether its encoding is not known."""
    if not any("\ud800" <= character <= "\udfff" for character in name):
        return name, False
    if encoding not in ("", AS_BYTES):
        with suppress(UnicodeDecodeError):
            return name.encode("utf-8", "surrogateescape").decode(encoding), False
    return name, True


def guess_encoding(written: Collection[bytes], names: Collection[str]) -> str:
    """The legacy encoding in which most of the paths `written` bear one of `names` (file names without folders), or an
    empty text where none does so better than UTF-8."""
    wanted = {unicodedata.normalize("NFC", name) for name in names}
    written = [name for name in written if not name.isascii()]
    matches = {encoding: _count_names(written, encoding, wanted) for encoding in ("utf-8", *_LEGACY)}
    best = max(matches, key=lambda encoding: matches[encoding])  # the first of those that match as many
    return best if matches[best] > matches["utf-8"] else ""


def _count_names(written: Iterable[bytes], encoding: str, wanted: Collection[str]) -> int:
    names = (name.decode(encoding, "replace").replace("\\", "/").rpartition("/")[2] for name in written)
    return sum(unicodedata.normalize("NFC", name) in wanted for name in names)
