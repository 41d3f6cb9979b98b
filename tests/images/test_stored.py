"""Every layout of stored bits, and films whose values stand for colours."""

from typing import Any

import numpy as np
import pytest
from film_files import GRAY, TWELVE, dicom
from pydicom.dataelem import DataElement
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pulmo.images.decode import decode_film, decode_gray
from pulmo.images.film import ImageError


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


LAYOUTS = [
    (allocated, stored, high, sign)
    for allocated in (8, 16, 24, 32, 40)
    for stored in (6, 8, 10, 12, 14, 16, 20, 24, 32)
    for high in (stored - 1, stored + 1, allocated - 1)
    for sign in (0, 1)
    if stored <= high + 1 <= allocated
]


@pytest.mark.parametrize(("allocated", "stored", "high", "sign"), sorted(set(LAYOUTS)))
def test_every_layout_of_stored_bits_shows_the_same(allocated: int, stored: int, high: int, sign: int) -> None:
    levels = GRAY.astype(np.int64) * (2**stored - 1) // 255
    pixels = (levels - sign * 2 ** (stored - 1)) & (2**stored - 1)
    garbage = np.random.default_rng(0).integers(0, 2**allocated, GRAY.shape)
    garbage &= ~((2**stored - 1) << (high + 1 - stored))
    layout = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": sign}
    words = ((pixels << (high + 1 - stored)) | garbage).astype("<u8")
    data = words.view(np.uint8).reshape(-1, 8)[:, : allocated // 8].tobytes()
    decoded = decode_gray(dicom(GRAY, BitsAllocated=allocated, PixelData=data + b"\0" * (len(data) % 2), **layout))
    assert furthest(decoded, np.rint(levels * 255 / (2**stored - 1))) <= 1


@pytest.mark.parametrize("high", [7, 11, 15, 99])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_high_bit_that_cannot_be_true_is_passed_over(high: int, sign: int) -> None:
    """The lowest twelve bits hold the film: 7 and 99 are impossible, and 15 would leave 256 of its 4,096 levels."""
    pixels = TWELVE.astype(np.int16) - 2048 if sign else TWELVE
    film = dicom(pixels, BitsStored=12, HighBit=high, WindowCenter=2048 - sign * 2048, WindowWidth=4096)
    assert furthest(decode_gray(film), GRAY) <= 1


def test_eight_bits_are_taken_as_they_are_in_every_layout() -> None:
    dull = GRAY // 2 + 30
    eight = {"BitsStored": 8, "HighBit": 7}
    for film in (
        dicom(dull),
        dicom(dull.astype(np.uint16), **eight),
        dicom(dull.astype(np.uint16) << 4, BitsStored=8, HighBit=11),
        dicom((dull.astype(int) - 128).astype(np.int8)),
        dicom(dull.astype(np.int16) - 128, **eight),
    ):
        np.testing.assert_array_equal(decode_gray(film), dull)


def test_bits_that_are_not_declared_are_all_stored() -> None:
    assert furthest(decode_gray(dicom(TWELVE, BitsStored=None, HighBit=None)), GRAY) <= 1


def test_24_bits_in_big_endian_order() -> None:
    data = TWELVE.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    layout = {"BitsAllocated": 24, "BitsStored": 12, "HighBit": 11}
    assert furthest(decode_gray(dicom(TWELVE.astype(">u2"), ExplicitVRBigEndian, PixelData=data, **layout)), GRAY) <= 1
    with pytest.raises(ImageError, match="fewer pixels than its header says"):
        decode_gray(dicom(TWELVE, PixelData=data[:-2], **layout))


COLOURS = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 77)], axis=1)
GRAYS = np.stack([np.arange(256)] * 3, axis=1)


def palette(colours: np.ndarray, bits: int = 8, packed: bool = True, first: int = 0) -> dict[str, Any]:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for place, name in enumerate(("Red", "Green", "Blue")):
        entries = (colours[:, place] * (257 if bits == 16 else 1)).astype(np.uint8 if packed else "<u2")
        descriptor, data = (f"{name}PaletteColorLookupTable{part}" for part in ("Descriptor", "Data"))
        tags[descriptor] = DataElement(descriptor, "US", [len(colours) % 65536, first % 65536, bits])
        tags[data] = DataElement(data, "OW", entries.tobytes())
    return tags


def luma(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours @ (0.299, 0.587, 0.114))


@pytest.mark.parametrize("colours", [GRAYS, COLOURS], ids=["gray", "colours"])
@pytest.mark.parametrize(("bits", "packed"), [(8, True), (8, False), (16, False)])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_palettes_become_luma(colours: np.ndarray, bits: int, packed: bool, syntax: Any) -> None:
    film = dicom(GRAY, *([syntax] if syntax else []), **palette(colours, bits, packed))
    assert furthest(decode_gray(film), luma(colours)[GRAY]) <= 1
    assert decode_film(film, None).not_chest == ("" if colours is GRAYS else "a picture in colour")


def test_palettes_begin_where_they_say_and_may_be_large() -> None:
    shades = np.stack([np.arange(4096) // 16] * 3, axis=1)
    for first in (0, -2048):
        pixels = TWELVE.astype(np.int16) + first
        assert furthest(decode_gray(dicom(pixels, **palette(shades, first=first))), GRAY) <= 1
    words = palette(shades, 16, packed=False) | {"RedPaletteColorLookupTableDescriptor": [4096, 0, 16]}
    assert furthest(decode_gray(dicom(TWELVE, **words)), GRAY) <= 1


def test_segmented_palettes_are_read() -> None:
    ramp = np.array([0, 1, 0, 1, 255, 255], np.uint8).tobytes()  # one entry of 0, then 255 on a line to 255
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        tags[f"Segmented{name}PaletteColorLookupTableData"] = ramp
    assert furthest(decode_gray(dicom(GRAY, **tags)), GRAY) <= 1


def test_a_palette_without_its_tables_is_named() -> None:
    with pytest.raises(ImageError, match="the palette of the DICOM film cannot be used: a lookup table is unusable"):
        decode_gray(dicom(GRAY, PhotometricInterpretation="PALETTE COLOR"))


def test_colours_of_16_bits_are_seen_as_colours() -> None:
    tinted = np.stack([TWELVE, TWELVE // 4, TWELVE // 8], axis=2)
    assert decode_film(dicom(tinted), None).not_chest == "a picture in colour"
    assert decode_film(dicom(np.stack([TWELVE] * 3, axis=2)), None).not_chest == ""
