"""DICOM films are shown as their attributes say, where those can be used, and never as nothing."""

from typing import Any

import numpy as np
import pytest
from film_files import GRAY, TWELVE, TWELVE_BITS, dicom, encode
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pulmo.images.decode import decode_film, decode_gray
from pulmo.images.film import ImageError

CURVE, LINE = np.sqrt(np.arange(4096) / 4095), np.linspace(0, 1, 4096)
STRETCHED = decode_gray(dicom(TWELVE, **TWELVE_BITS))


def note(content: bytes) -> str:
    return decode_film(content, None).note


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def table(first: int, bits: int, shares: np.ndarray, kind: str, packed: bool = False, **tags: Any) -> Dataset:
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "US", [len(shares) % 65536, first % 65536, bits]))
    entries = np.rint(shares * (2**bits - 1)).astype(np.uint8 if packed else np.uint16)
    item.add(DataElement("LUTData", kind, entries.tolist() if kind == "US" else entries.tobytes()))
    for name, value in tags.items():
        setattr(item, name, value)
    return item


PACKINGS = [
    *((bits, kind, False) for bits in (8, 10, 12, 16) for kind in ("OW", "US")),
    *((8, kind, True) for kind in ("OW", "OB")),
]


@pytest.mark.parametrize("first", [0, -1024, 512])
@pytest.mark.parametrize(("bits", "kind", "packed"), PACKINGS)
def test_voi_tables_of_all_depths_and_packings_show_the_same(bits: int, kind: str, packed: bool, first: int) -> None:
    tags = {"RescaleSlope": 1, "RescaleIntercept": first} | TWELVE_BITS
    film = dicom(TWELVE, VOILUTSequence=[table(first, bits, CURVE, kind, packed)], **tags)
    assert furthest(decode_gray(film), np.rint(CURVE[TWELVE] * 255)) <= 1
    assert note(film) == ""


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "kind", "packed"), PACKINGS)
def test_modality_tables_of_all_depths_and_packings_show_the_same(
    bits: int, kind: str, packed: bool, signed: bool
) -> None:
    pixels, first = (TWELVE.astype(np.int16) - 2048, -2048) if signed else (TWELVE, 0)
    item = table(first, bits, LINE, kind, packed, ModalityLUTType="US")
    assert furthest(decode_gray(dicom(pixels, ModalityLUTSequence=[item])), GRAY) <= 1


def test_big_endian_tables_are_read_in_their_order() -> None:
    for bits, packed in ((12, False), (8, True)):
        item = table(0, bits, CURVE, "OW", packed)
        item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
        film = dicom(TWELVE.astype(">u2"), ExplicitVRBigEndian, VOILUTSequence=[item], **TWELVE_BITS)
        assert furthest(decode_gray(film), np.rint(CURVE[TWELVE] * 255)) <= 1


def test_more_values_than_a_table_holds_are_shown() -> None:
    film = dicom(GRAY.astype(np.uint32) * 10_000_000, WindowCenter=1.275e9, WindowWidth=2.55e9)
    assert furthest(decode_gray(film), GRAY) <= 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [("LINEAR", (20, 144, 226)), ("LINEAR_EXACT", (20, 143, 226)), ("SIGMOID", (40, 143, 210)), (None, (20, 144, 226))],
)
def test_windows_follow_the_standard(function: str | None, expected: tuple[int, ...]) -> None:
    """Center 40, width 400: three values by hand from PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    pixels = TWELVE // 8 + 824
    pixels[0, :3] = [-129 + 1024, 65 + 1024, 194 + 1024]
    tags = {} if function is None else {"VOILUTFunction": function}
    film = dicom(pixels, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-1024, **tags)
    assert tuple(decode_gray(film)[0, :3]) == expected


@pytest.mark.parametrize("mode", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY", None])
def test_a_film_is_inverted_once(mode: str, shape: str | None) -> None:
    tags = {} if shape is None else {"PresentationLUTShape": shape}
    inverted = mode == "MONOCHROME1" or shape == "INVERSE"
    decoded = decode_gray(dicom(GRAY, PhotometricInterpretation=mode, **tags))
    np.testing.assert_array_equal(decoded, 255 - GRAY if inverted else GRAY)


NO_PICTURE = {
    "window below the data": {"WindowCenter": -127, "WindowWidth": 255},
    "window above the data": {"WindowCenter": 32768, "WindowWidth": 1000},
    "slope 0": {"RescaleSlope": 0, "RescaleIntercept": 0},
    "slope 0 and a window": {"RescaleSlope": 0, "RescaleIntercept": 9, "WindowCenter": 9, "WindowWidth": 2},
    "width 1 on a tiny slope": {"RescaleSlope": 0.0002, "RescaleIntercept": 0, "WindowCenter": 0.5, "WindowWidth": 1},
    "two levels": {"WindowCenter": 2000, "WindowWidth": 1},
    "narrow": {"WindowCenter": 2000, "WindowWidth": 20},
    "narrow sigmoid": {"WindowCenter": 2000, "WindowWidth": 2, "VOILUTFunction": "SIGMOID"},
    "constant table": {"VOILUTSequence": [table(0, 16, LINE * 0 + 0.5, "OW")]},
    "table beside the data": {"VOILUTSequence": [table(20000, 16, LINE, "OW")]},
    "constant modality table": {"ModalityLUTSequence": [table(0, 16, LINE * 0, "OW", ModalityLUTType="US")]},
}
UNUSABLE = {
    "width 0": {"WindowCenter": 0, "WindowWidth": 0},
    "width below 1": {"WindowCenter": 0.5, "WindowWidth": 0.9},
    "negative width": {"WindowCenter": 2048, "WindowWidth": -4096},
    "empty window": {"WindowCenter": "", "WindowWidth": ""},
    "empty rescale": {"RescaleSlope": "", "RescaleIntercept": ""},
    "empty intercept": {"RescaleSlope": "1", "RescaleIntercept": ""},
    "unknown function": {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "SAMPLED_SIGMOID"},
    "no item": {"VOILUTSequence": Sequence([])},
    "empty item": {"VOILUTSequence": [Dataset()]},
    "short table": {"VOILUTSequence": [table(0, 16, LINE, "OW", LUTData=b"\0\1" * 9)]},
    "descriptor of two": {"VOILUTSequence": [table(0, 16, LINE, "OW", LUTDescriptor=[4096, 0])]},
}


@pytest.mark.parametrize("mode", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("tags", [*NO_PICTURE.values(), *UNUSABLE.values()], ids=[*NO_PICTURE, *UNUSABLE])
def test_display_that_cannot_be_used_falls_back_to_stretching_with_a_note(tags: dict[str, Any], mode: str) -> None:
    film = dicom(TWELVE, PhotometricInterpretation=mode, **TWELVE_BITS, **tags)
    assert furthest(decode_gray(film), STRETCHED if mode == "MONOCHROME2" else 255 - STRETCHED) <= 1
    assert note(film).endswith("stretched instead")
    assert "\n" not in note(film)


@pytest.mark.parametrize("half", [{"WindowCenter": 100}, {"WindowWidth": 50}])
def test_half_a_window_is_none(half: dict[str, Any]) -> None:
    film = dicom(TWELVE, **TWELVE_BITS, **half)
    np.testing.assert_array_equal(decode_gray(film), STRETCHED)


def test_decimal_comma_is_no_number() -> None:
    film = dicom(TWELVE, WindowCenter="2048", WindowWidth="4096.0").replace(b"4096.0", b"4096,0")
    np.testing.assert_array_equal(decode_gray(film), STRETCHED)
    assert "width nan" in note(film)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("kind", ["FD", "FL", "US", "LO"])
def test_windows_of_another_representation_are_read(kind: str) -> None:
    tags = {
        name: DataElement(name, kind, str(number) if kind == "LO" else number)
        for name, number in (("WindowCenter", 2000), ("WindowWidth", 3000))
    }
    expected = decode_gray(dicom(TWELVE, WindowCenter=2000, WindowWidth=3000, **TWELVE_BITS))
    film = dicom(TWELVE, **TWELVE_BITS, **tags, VOILUTFunction="linear")
    np.testing.assert_array_equal(decode_gray(film), expected)
    assert note(film) == ""


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_codes_in_small_letters_mean_the_same() -> None:
    inverted = {"PresentationLUTShape": "inverse", "PhotometricInterpretation": "monochrome2"}
    np.testing.assert_array_equal(decode_gray(dicom(GRAY, **inverted)), 255 - GRAY)


def test_values_far_from_zero_keep_their_levels() -> None:
    film = dicom(TWELVE, RescaleSlope=1, RescaleIntercept="1e12", WindowCenter="1000000002048", WindowWidth=4096)
    assert furthest(decode_gray(film), decode_gray(dicom(TWELVE, WindowCenter=2048, WindowWidth=4096))) <= 1
    np.testing.assert_array_equal(decode_gray(dicom(TWELVE, RescaleSlope=1, RescaleIntercept="1e12")), GRAY)


def test_colour_without_its_planes_declared_is_read() -> None:
    np.testing.assert_array_equal(decode_gray(dicom(np.stack([GRAY] * 3, 2), PlanarConfiguration=None)), GRAY)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_padding_is_read_in_every_encoding(syntax: UID) -> None:
    pixels = TWELVE.copy()
    pixels[:40] = 0xFFFF
    pixels = pixels.astype(">u2") if syntax == ExplicitVRBigEndian else pixels
    decoded = decode_gray(dicom(pixels, syntax, PixelPaddingValue=0xFFFF))
    assert not decoded[:40].any()
    assert furthest(decoded[40:], decode_gray(dicom(TWELVE[40:]))) <= 1


def test_the_next_usable_attribute_counts() -> None:
    window = {"WindowCenter": 2000, "WindowWidth": 3000, **TWELVE_BITS}
    expected = decode_gray(dicom(TWELVE, **window))
    for tags in (
        {"VOILUTSequence": [Dataset()], **window},
        {"VOILUTSequence": [Dataset(), table(90, 16, LINE[:2], "OW")], **window},
        {"RescaleSlope": "", "RescaleIntercept": "", **window},
        {**window, "WindowCenter": [0, 2000], "WindowWidth": [0, 3000]},
    ):
        film = dicom(TWELVE, **tags)
        np.testing.assert_array_equal(decode_gray(film), expected)
        assert note(film)
        assert "stretched" not in note(film)
    second = dicom(TWELVE, VOILUTSequence=[Dataset(), table(0, 16, CURVE, "OW")], **window)
    assert furthest(decode_gray(second), np.rint(CURVE[TWELVE] * 255)) <= 1


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1280, "WindowWidth": 2560}])
def test_a_small_film_on_a_large_ground_is_a_picture(window: dict[str, Any]) -> None:
    small = np.zeros((1200, 1600), np.uint16)
    small[500:620, 700:860] = TWELVE[::2, ::2] // 2 + 100
    bright = small.copy()
    bright[:500] = 4000
    for pixels in (small, bright):
        shown = decode_gray(dicom(pixels, **TWELVE_BITS, **window))
        assert len(np.unique(shown)) > 100


def test_few_bits_of_eight_use_the_whole_range() -> None:
    for bits in (2, 4, 6, 7):
        decoded = decode_gray(dicom(GRAY >> (8 - bits), BitsStored=bits, HighBit=bits - 1))
        assert (decoded.min(), decoded.max()) == (0, 255)


@pytest.mark.parametrize("spread", [2, 10])
@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 1000, "WindowWidth": 20}])
@pytest.mark.parametrize("form", ["dicom", "PNG", "TIFF", "BMP"])
def test_the_noise_of_a_sensor_is_no_picture(form: str, tags: dict[str, Any], spread: int) -> None:
    middle = 100 if form == "BMP" else 1000
    noise = np.random.default_rng(0).integers(middle - spread, middle + 1 + spread, GRAY.shape)
    noise = noise.astype(np.uint8 if form == "BMP" else np.uint16)
    film = GRAY // (2 if form == "BMP" else 16) + noise
    for pixels, refused in ((noise, True), (film, False)):
        content = dicom(pixels, **tags) if form == "dicom" else encode(Image.fromarray(pixels), form)
        if refused:
            with pytest.raises(ImageError, match="carries no picture"):
                decode_gray(content)
        else:
            assert decode_gray(content).std() > 25


@pytest.mark.parametrize(
    "tags", [{}, {"WindowCenter": 9, "WindowWidth": 2}, {"RescaleSlope": 3, "RescaleIntercept": 1}]
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_dicom_without_a_picture_is_refused(kind: type, tags: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 2, GRAY.shape)
    for pixels in (np.full(GRAY.shape, 7), 7 + noise):
        with pytest.raises(ImageError, match="carries no picture"):
            decode_gray(dicom(pixels.astype(kind), **tags))


def bare(content: bytes) -> bytes:
    """The data set alone, as files before DICOM 3 have it."""
    size = int.from_bytes(content[140:144], "little")
    return content[144 + size :]


def test_dicom_without_header_is_told_by_its_content() -> None:
    explicit, implicit = dicom(TWELVE, **TWELVE_BITS), dicom(TWELVE, ImplicitVRLittleEndian, **TWELVE_BITS)
    for film in (bare(explicit), bare(implicit), explicit[132:], implicit[132:]):
        np.testing.assert_array_equal(decode_gray(film), STRETCHED)


def test_attributes_that_old_files_lack_are_assumed() -> None:
    lacking = dict.fromkeys(("SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "HighBit"))
    np.testing.assert_array_equal(decode_gray(bare(dicom(TWELVE, **lacking))), STRETCHED)
    np.testing.assert_array_equal(decode_gray(dicom(TWELVE, **lacking)), STRETCHED)


def test_big_endian_dicom_without_header_is_told_by_its_content() -> None:
    film = dicom(TWELVE.astype(">u2"), ExplicitVRBigEndian, **TWELVE_BITS)
    for start in (132, len(film) - len(bare(film))):
        np.testing.assert_array_equal(decode_gray(film[start:]), STRETCHED)


def test_meta_information_alone_is_no_film() -> None:
    film = dicom(TWELVE)
    for content in (film[: -len(bare(film))], film[132 : -len(bare(film))]):
        with pytest.raises(ImageError, match="holds no image"):
            decode_gray(content)


def test_declared_encoding_may_be_wrong() -> None:
    film = dicom(TWELVE, **TWELVE_BITS)
    body = bare(dicom(TWELVE, ImplicitVRLittleEndian, **TWELVE_BITS))
    np.testing.assert_array_equal(decode_gray(film[: len(film) - len(bare(film))] + body), STRETCHED)
