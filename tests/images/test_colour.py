"""Sixteen bits a channel are kept: the same pixels look the same in gray and in colour."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from film_files import GRAY, dicom, encode
from PIL import Image

from pulmo.images.decode import decode_film, decode_gray
from pulmo.images.film import ImageError

DEEP = GRAY.astype(np.uint16) * 13 + 300  # a high byte of 14 levels
EXPECTED = decode_gray(encode(Image.fromarray(DEEP), "PNG"))
RGB, LA, RGBA = 2, 4, 6


def png(channels: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    head = struct.pack(">IIBBBBB", channels.shape[1], channels.shape[0], 16, kind, 0, 0, 0)
    body = b"".join(chunk(*pair) for pair in (*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


def tiff(pixels: np.ndarray, *options: int) -> bytes:
    done, content = cv2.imencode(".tiff", pixels, options)
    assert done
    return content.tobytes()


def channels(*values: np.ndarray | int) -> np.ndarray:
    return np.stack([np.broadcast_to(np.asarray(value, np.uint16), DEEP.shape) for value in values], 2)


FILMS = {
    "RGB48": png(channels(DEEP, DEEP, DEEP), RGB),
    "RGBA64": png(channels(DEEP, DEEP, DEEP, 65535), RGBA),
    "LA32": png(channels(DEEP, 65535), LA),
    "TIFF": tiff(channels(DEEP, DEEP, DEEP)),
    "TIFF uncompressed": tiff(channels(DEEP, DEEP, DEEP), cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "TIFF with alpha": tiff(channels(DEEP, DEEP, DEEP, 65535)),
    "DICOM": dicom(channels(DEEP, DEEP, DEEP)),
}


@pytest.mark.parametrize("name", FILMS)
def test_deep_colour_looks_like_deep_gray(name: str) -> None:
    assert len(np.unique(EXPECTED)) > 200
    np.testing.assert_array_equal(decode_gray(FILMS[name]), EXPECTED)


WHITE_IS_ZERO, SIGNED = {262: 0}, {339: 2}
RARE = {
    "float colour": tiff(channels(DEEP, DEEP, DEEP).astype(np.float32)),
    "double": tiff(DEEP.astype(np.float64)),
    "32-bit colour": tiff(channels(DEEP, DEEP, DEEP).astype(np.uint32)),
    "big-endian, white is zero": encode(Image.fromarray((65535 - DEEP).astype(">u2")), "TIFF", tiffinfo=WHITE_IS_ZERO),
    "signed bytes": encode((GRAY.astype(int) - 128).astype(np.int8).view(np.uint8), "TIFF", tiffinfo=SIGNED),
}


@pytest.mark.parametrize("name", RARE)
def test_tiff_that_pillow_does_not_read_looks_the_same(name: str) -> None:
    expected = GRAY if name == "signed bytes" else EXPECTED
    assert np.abs(decode_gray(RARE[name]).astype(int) - expected).max() <= 1


def test_a_tiff_that_is_not_read_is_called_one() -> None:
    half = encode(Image.fromarray(GRAY), "TIFF").replace(
        struct.pack("<HHI", 258, 3, 1) + b"\x08", struct.pack("<HHI", 258, 3, 1) + b"\x0b"
    )
    with pytest.raises(ImageError, match="a TIFF of a kind that is not read\n\nhint: store the film in gray"):
        decode_gray(half)


def test_deep_colour_becomes_luma() -> None:
    coarse = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    coarse[:4], coarse[-4:] = 0, 255  # so that stretching changes nothing
    luma = np.asarray(Image.fromarray(coarse).convert("L")).astype(int)
    deep = coarse.astype(np.uint16) * 257
    for film in (png(deep, RGB), tiff(deep[..., ::-1]), dicom(deep)):
        assert np.abs(decode_gray(film) - luma).max() <= 1


@pytest.mark.parametrize("kind", [LA, RGBA])
def test_transparency_of_deep_colour_is_laid_over_black(kind: int) -> None:
    alpha = np.where(np.arange(320) < 200, 65535, 32768)[None]
    film = png(channels(*[DEEP] * (kind // 2 - (kind == LA)), alpha), kind)
    over_black = np.rint(DEEP * (alpha / 65535)).astype(np.uint16)
    assert np.abs(decode_gray(film) - decode_gray(encode(Image.fromarray(over_black), "PNG")).astype(int)).max() <= 1


def test_deep_colour_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(DEEP, 1)
    film = png(np.stack([turned] * 3, 2), RGB, (b"eXIf", exif.tobytes()[6:]))
    np.testing.assert_array_equal(decode_gray(film), EXPECTED)
    assert decode_film(film, None).width == 240


def test_damaged_deep_colour_is_refused() -> None:
    for content in (FILMS["RGB48"][:-200], FILMS["TIFF uncompressed"][: len(FILMS["TIFF uncompressed"]) // 2]):
        with pytest.raises(ImageError):
            decode_gray(content)
