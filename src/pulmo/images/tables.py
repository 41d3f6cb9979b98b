"""Numbers and lookup tables of a DICOM dataset, read from their bytes because writers pack and declare them freely."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_ENTRIES = 2**16
_BINARY = ("FD", "FL", "SL", "SS", "UL", "US")  # value representations of numbers that are no text


class Unusable(Exception):
    """A display attribute that cannot be used; the message says which."""


class Table(NamedTuple):
    first: int  # the value that the first entry stands for
    entries: NDArray[np.float64]

    def look_up(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The entry of each value; below and above the table, its first and last."""
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        entries: NDArray[np.float64] = self.entries[places.astype(np.int64)]
        return entries


def read_numbers(film: Any, keyword: str) -> list[float] | None:
    """The values of an attribute, None without it; each that is no number (a decimal comma, an empty text) is NaN."""
    if keyword not in film:
        return None
    element = film.get_item(keyword)
    value = element.value
    if isinstance(value, bytes) and element.VR in _BINARY:
        value = film[keyword].value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    elif value is None or isinstance(value, str | int | float):
        value = [value]
    return [_to_float(part) for part in value] or [float("nan")]


def _to_float(part: Any) -> float:
    try:
        return float(str(part).strip(" \0\t\r\n"))
    except ValueError:
        return float("nan")


def read_word(film: Any, keyword: str) -> int | None:
    """The bits of an attribute of one 16-bit word, whatever its sign; None without it, or where it holds none."""
    try:
        data, swapped = _read_bytes(film, keyword)
        return int(np.frombuffer(data, ">u2" if swapped else "<u2", 1)[0])
    except (AttributeError, TypeError, ValueError, KeyError):
        return None


def read_items(film: Any, keyword: str) -> list[Any]:
    """The items of a sequence of lookup tables; an empty sequence is one item without a table."""
    if keyword not in film:
        return []
    try:
        return list(film[keyword].value) or [None]
    except Exception:  # pydicom raises almost any type on a damaged sequence
        return [None]


def read_table(item: Any, values: NDArray[np.float64], name: str = "LUT") -> Table:
    """The lookup table `name` of an item, for a film that holds `values`. Raises Unusable."""
    kind = "a lookup table is unusable"
    try:
        descriptor, swapped = _read_bytes(item, f"{name}Descriptor")
        data, swapped = _read_bytes(item, f"{name}Data")
    except Exception:
        raise Unusable(f"{kind}: it lacks its descriptor or data") from None
    if len(descriptor) != 6:
        raise Unusable(f"{kind}: its descriptor is not three numbers of 16 bits")
    word = ">u2" if swapped else "<u2"
    count, first, bits = (int(number) for number in np.frombuffer(descriptor, word))
    count = count or _MOST_ENTRIES
    if len(data) >= 2 * count:
        entries = np.frombuffer(data, word, count)
    elif bits <= 8 and len(data) >= count:
        # two entries in a word, the first in its low byte
        packed = np.frombuffer(data[: len(data) // 2 * 2], word).astype("<u2") if swapped else data
        entries = np.frombuffer(packed, np.uint8, count)
    else:
        raise Unusable(f"{kind}: it promises {count} entries and holds {len(data)} bytes")
    return Table(_choose_first(first, count, values), entries.astype(float))


def _choose_first(first: int, count: int, values: NDArray[np.float64]) -> int:
    """The first value, with or without a sign: what puts the table where the film's values lie."""

    def overlap(start: int) -> float:
        return min(start + count - 1, float(values.max())) - max(start, float(values.min()))

    return max((first, first - 2**16) if first >= 2**15 else (first,), key=overlap)


def _read_bytes(item: Any, keyword: str) -> tuple[bytes, bool]:
    """The bytes of an attribute of 16-bit words, and whether their order is big-endian."""
    element = item.get_item(keyword)
    if isinstance(element.value, bytes):
        return element.value, element.VR != "OB" and not getattr(element, "is_little_endian", True)
    words = np.atleast_1d(np.asarray(element.value)).astype(np.int64)
    return (words & 0xFFFF).astype("<u2").tobytes(), False
