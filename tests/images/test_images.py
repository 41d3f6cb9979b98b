"""Every kind of film becomes the gray it holds; every kind of damage becomes one line."""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from film_files import GRAY, ODD, TWELVE, TWELVE_BITS, dicom, encode
from PIL import Image, ImageCms
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pulmo.images.decode import decode_gray, read_image
from pulmo.images.film import ImageError
from pulmo.images.gray import fit_picture
from pulmo.images.inspect import FileFacts, inspect_file


def in_mode(mode: str) -> Image.Image:
    return Image.fromarray(GRAY).convert("RGB").convert(mode)


def deep(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values))


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize(
    ("kind", "image", "options"),
    [
        ("PNG", in_mode("L"), {}),
        ("PNG", in_mode("RGB"), {}),
        ("PNG", in_mode("RGBA"), {}),
        ("PNG", in_mode("LA"), {}),
        ("PNG", in_mode("L").convert("P"), {}),
        ("BMP", in_mode("L"), {}),
        ("BMP", in_mode("RGB"), {}),
        ("TIFF", in_mode("L"), {}),
        ("TIFF", in_mode("L"), {"compression": "tiff_lzw"}),
        ("TIFF", in_mode("L"), {"tiffinfo": {262: 0}}),
        ("TIFF", in_mode("CMYK"), {}),
        ("WEBP", in_mode("RGB"), {"lossless": True}),
        ("PNG", deep(GRAY.astype(np.uint16) * 257), {}),
        ("PNG", deep(GRAY.astype(np.uint16) * 16), {}),
        ("TIFF", deep(GRAY.astype(np.uint16) * 100 + 8000), {}),
        ("TIFF", deep(GRAY.astype(np.int32) * 1000 - 5000), {}),
        ("TIFF", deep(GRAY.astype(np.float32) / 255), {}),
        ("TIFF", deep((255 - GRAY).astype(np.uint16) * 257), {"tiffinfo": {262: 0}}),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_lossless_kinds_give_exactly_their_gray(kind: str, image: Image.Image, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode_gray(encode(image, kind, **options)), GRAY)


def test_one_bit_becomes_black_and_white() -> None:
    bits = GRAY > 100
    np.testing.assert_array_equal(decode_gray(encode(Image.fromarray(bits), "PNG")), np.where(bits, 255, 0))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"keep_rgb": True}])
def test_jpeg_with_equal_channels_gives_exactly_the_channel(options: dict[str, Any]) -> None:
    film = encode(in_mode("RGB"), "JPEG", quality=90, **options)
    channels = np.asarray(Image.open(io.BytesIO(film)))
    assert channels.shape == (240, 320, 3)
    assert (channels == channels[..., :1]).all()
    np.testing.assert_array_equal(decode_gray(film), channels[..., 0])


def test_cmyk_jpeg_is_not_inverted() -> None:
    assert mean_difference(decode_gray(encode(in_mode("CMYK"), "JPEG", quality=95)), GRAY) < 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_colour_becomes_luma(kind: str) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    film = encode(Image.fromarray(colours), kind, **({"quality": 95} if kind == "JPEG" else {}))
    luma = np.asarray(Image.open(io.BytesIO(film)).convert("L"))
    assert mean_difference(decode_gray(film), luma) < (0.5 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_black(mode: str) -> None:
    if mode == "P":
        film = encode(in_mode("L").convert("P"), "PNG", transparency=bytes([0, *[128] * 255]))
    else:
        image = in_mode(mode)
        image.putalpha(128)
        film = encode(image, "PNG")
    assert np.abs(decode_gray(film) - GRAY * (128 / 255)).max() <= 1


def test_transparent_gray_level_becomes_black() -> None:
    decoded = decode_gray(encode(GRAY, "PNG", transparency=200))
    np.testing.assert_array_equal(decoded, np.where(GRAY == 200, 0, GRAY))


def test_deep_pixels_survive_dead_pixels() -> None:
    values = GRAY.astype(np.uint16) * 16
    values[0, :3] = 65535
    decoded = decode_gray(encode(deep(values), "PNG"))
    assert mean_difference(decoded[1:], GRAY[1:]) < 1


TURNED = {
    1: GRAY,
    2: GRAY[:, ::-1],
    3: GRAY[::-1, ::-1],
    4: GRAY[::-1],
    5: GRAY.T,
    6: np.rot90(GRAY, 1),
    7: GRAY[::-1, ::-1].T,
    8: np.rot90(GRAY, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_honoured(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation]))
    film = tmp_path / "film"
    film.write_bytes(encode(stored, kind, exif=exif))
    assert mean_difference(decode_gray(film), GRAY) < (1 if kind == "JPEG" else 1e-9)
    facts = inspect_file(film)
    assert (facts.width, facts.height) == ((320, 240) if kind == "TIFF" else stored.size)


def test_phone_photo_with_a_preview_is_one_film() -> None:
    film = encode(GRAY, "MPO", save_all=True, append_images=[Image.new("L", (16, 16))], quality=95)
    assert mean_difference(decode_gray(film), GRAY) < 1


def test_dicom_of_8_bits_is_taken_as_it_is() -> None:
    dull = GRAY // 2 + 30
    np.testing.assert_array_equal(decode_gray(dicom(dull)), dull)
    np.testing.assert_array_equal(decode_gray(dicom(dull, PhotometricInterpretation="MONOCHROME1")), 255 - dull)
    np.testing.assert_array_equal(decode_gray(dicom(np.stack([dull] * 3, 2))), dull)


@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_dicom_without_window_is_stretched(kind: str) -> None:
    np.testing.assert_array_equal(decode_gray(dicom((TWELVE - 900).astype(kind) + 900)), GRAY)
    inverted = dicom(TWELVE, PhotometricInterpretation="MONOCHROME1", **TWELVE_BITS)
    assert np.abs(decode_gray(inverted).astype(int) - (255 - GRAY)).max() <= 1


def linear(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """DICOM PS3.3 C.11.2.1.2.1, with an output range of 0 to 255."""
    return (((values - (center - 0.5)) / (width - 1) + 0.5) * 255).clip(0, 255)


def test_dicom_window_is_applied() -> None:
    decoded = decode_gray(dicom(TWELVE, WindowCenter=2000, WindowWidth=1000, **TWELVE_BITS))
    assert np.abs(decoded - linear(TWELVE, 2000, 1000)).max() <= 0.51
    inverted = decode_gray(
        dicom(TWELVE, WindowCenter=2000, WindowWidth=1000, PhotometricInterpretation="MONOCHROME1", **TWELVE_BITS)
    )
    np.testing.assert_array_equal(inverted, 255 - decoded)
    several = decode_gray(dicom(TWELVE, WindowCenter=[2000, 9], WindowWidth=[1000, 9], **TWELVE_BITS))
    np.testing.assert_array_equal(several, decoded)


def test_dicom_window_wider_than_the_data_does_not_stretch_them() -> None:
    assert decode_gray(dicom(TWELVE // 4 + 1000, WindowCenter=2048, WindowWidth=4096, **TWELVE_BITS)).max() < 140


@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_dicom_window_is_in_rescaled_units(slope: float) -> None:
    film = dicom(TWELVE, RescaleSlope=slope, RescaleIntercept=-1000, WindowCenter=slope * 1500, WindowWidth=3000)
    assert np.abs(decode_gray(film) - linear(TWELVE * slope - 1000, slope * 1500, 3000)).max() <= 0.51


def test_dicom_sigmoid_window_is_applied() -> None:
    film = dicom(TWELVE, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID", **TWELVE_BITS)
    expected = 255 / (1 + np.exp(-4 * (TWELVE.astype(float) - 2000) / 1000))
    assert np.abs(decode_gray(film) - expected).max() <= 0.51


@pytest.mark.parametrize("falling", [False, True])
def test_dicom_lookup_table_is_applied(falling: bool) -> None:
    curve = (np.sqrt(np.arange(4096) / 4095) * 1023).round().astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 10]
    table.LUTData = (curve[::-1] if falling else curve).tobytes()
    table["LUTData"].VR = "OW"
    expected = np.asarray(curve[::-1] if falling else curve)[TWELVE] / 1023 * 255
    for rescale in ({}, {"RescaleSlope": 1, "RescaleIntercept": 0}):
        decoded = decode_gray(dicom(TWELVE, VOILUTSequence=[table], **TWELVE_BITS, **rescale))
        assert np.abs(decoded - expected).max() <= 0.51


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_losslessly_compressed_dicom(syntax: UID, tmp_path: Path) -> None:
    (tmp_path / "plain.dcm").write_bytes(dicom(TWELVE, **TWELVE_BITS))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "small.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "small.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(decode_gray(tmp_path / "small.dcm"), GRAY)


def test_dicom_in_baseline_jpeg() -> None:
    jpeg = encode(GRAY, "JPEG", quality=95)
    np.testing.assert_array_equal(decode_gray(dicom(GRAY, JPEGBaseline8Bit, jpeg)), decode_gray(jpeg))


UNSIGNED = DataElement("PixelPaddingValue", "US", 2**16 - 2000)  # which is -2000 where pixels are signed
PADDINGS = {
    # pixels of the film, what fills the upper rows, and the tags
    "12 bit": (TWELVE, 0xFFFF, {"PixelPaddingValue": 0xFFFF}),
    "in the midst of the grays": (TWELVE, 2000, {"PixelPaddingValue": 2000}),
    "signed": (TWELVE.astype(np.int16) - 2048, -2048 - 99, {"PixelPaddingValue": -2048 - 99}),
    "sign not declared": (TWELVE.astype(np.int16), -2000, {"PixelPaddingValue": UNSIGNED}),
    "range": (TWELVE, 60000, {"PixelPaddingValue": 50000, "PixelPaddingRangeLimit": 65535}),
    "falling range": (TWELVE, 60000, {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 50000}),
    "8 bit": (GRAY, 255, {"PixelPaddingValue": 255}),
    "rescaled": (TWELVE, 0xFFFF, {"PixelPaddingValue": 0xFFFF, "RescaleSlope": 2, "RescaleIntercept": -1000}),
}


@pytest.mark.parametrize("mode", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("name", PADDINGS)
def test_dicom_padding_is_black_and_does_not_count(name: str, window: bool, mode: str) -> None:
    film, filler, padding = PADDINGS[name]
    tags = {"PhotometricInterpretation": mode, **({"WindowCenter": 100, "WindowWidth": 1000} if window else {})}
    rescale = {key: value for key, value in padding.items() if key.startswith("Rescale")}
    expected = decode_gray(dicom(film, **tags, **rescale))
    expected[film == filler] = 0
    padded = np.concatenate([np.full((160, 320), filler, film.dtype), film])
    decoded = decode_gray(dicom(padded, **tags, **padding))
    assert not decoded[:160].any()
    assert np.abs(decoded[160:].astype(int) - expected).max() <= 1


def test_dicom_padding_that_no_pixel_can_hold_changes_nothing() -> None:
    empty = DataElement("PixelPaddingValue", "US", None)
    for value in (300, 65535, empty, DataElement("PixelPaddingValue", "SS", -1)):
        np.testing.assert_array_equal(decode_gray(dicom(GRAY, PixelPaddingValue=value)), GRAY)


def test_dicom_of_8_bits_is_rescaled_where_it_says_so() -> None:
    dull = GRAY // 2 + 30
    np.testing.assert_array_equal(decode_gray(dicom(255 - GRAY, RescaleSlope=-1, RescaleIntercept=255)), GRAY)
    np.testing.assert_array_equal(decode_gray(dicom(dull, RescaleSlope=1, RescaleIntercept=0)), dull)


def test_dicom_tells_its_patient_by_a_hash(tmp_path: Path) -> None:
    def patient(identity: str | None) -> str:
        (tmp_path / "film").write_bytes(dicom(ODD, **({} if identity is None else {"PatientID": identity})))
        return inspect_file(tmp_path / "film").patient

    assert patient("HOSP-4711") == patient(" HOSP-4711 ") != patient("HOSP-4712")
    assert re.fullmatch("[0-9a-f]{12}", patient("HOSP-4711"))
    for nobody in (None, "", "  ", "0", "0000", "XXX", "Anonymous", "ANONYMIZED", "anon", "n/a", "Unknown"):
        assert patient(nobody) == ""
    assert len({patient("ANON001"), patient("ANON002"), patient("0001"), patient("x-1")}) == 4


def two_pages() -> bytes:
    return encode(GRAY, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)])


def resized_header(width: int, height: int) -> bytes:
    """A PNG whose header claims another size, with the right checksum."""
    film = bytearray(encode(ODD, "PNG"))
    film[16:24] = struct.pack(">II", width, height)
    film[29:33] = struct.pack(">I", zlib.crc32(film[12:29]))
    return bytes(film)


def zero_filled(film: bytes) -> bytes:
    return film[: len(film) // 2] + bytes(len(film) - len(film) // 2)


def flipped(film: bytes) -> bytes:
    middle = len(film) // 2
    return film[:middle] + bytes([film[middle] ^ 16]) + film[middle + 1 :]


def in_lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(in_mode("RGB"), *profiles, outputMode="LAB")
    assert lab is not None
    return lab


JPEG = encode(ODD, "JPEG", quality=95)
PROGRESSIVE = encode(ODD, "JPEG", progressive=True)
PNG = encode(ODD, "PNG")
BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no film" * 50, "not an image in"),
    "page": (b"<!DOCTYPE html><html><body>404</body></html>" * 9, "not an image in"),
    "gif": (encode(ODD, "GIF"), "not an image in"),
    "pdf": (encode(ODD, "PDF"), "not an image in"),
    "jpeg cut in its header": (JPEG[:100], "cannot be decoded: "),
    "jpeg cut in half": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg cut at its end": (JPEG[:-2], "truncated"),
    "jpeg with zeros for its second half": (zero_filled(JPEG), "truncated"),
    "jpeg padded after the cut": (JPEG[: len(JPEG) // 2] + b"\0" * 9999, "truncated"),
    "progressive jpeg cut in half": (PROGRESSIVE[: len(PROGRESSIVE) // 2], "truncated"),
    "png cut in half": (PNG[: len(PNG) // 2], "cannot be decoded: .*runcated"),
    "png with zeros for its second half": (zero_filled(PNG), "cannot be decoded: .*checksum"),
    "png with one wrong bit": (flipped(PNG), "cannot be decoded: .*checksum"),
    "bmp cut": (encode(ODD, "BMP")[:-40], "truncated"),
    "tiff cut": (encode(ODD, "TIFF")[:-40], "truncated"),
    "tiff cut, compressed": (encode(ODD, "TIFF", compression="tiff_deflate")[:-40], "cannot be decoded: "),
    "webp cut": (encode(ODD, "WEBP", lossless=True)[:-40], "cannot be decoded: "),
    "no pixels": (resized_header(0, 8), "not an image in"),
    "bomb": (encode(Image.new("1", (8100, 8000)), "PNG"), "8100 x 8000 pixels are more than the 64 million allowed"),
    "large bomb": (resized_header(60000, 60000), "has more than the 64 million pixels allowed"),
    "tiff of two pages": (two_pages(), "holds 2 pages\n\nhint: store one film per file"),
    "tiff with nan": (encode(deep(np.full((9, 9), np.nan, np.float32)), "TIFF"), "not finite"),
    "lab colours": (encode(in_lab(), "TIFF"), "cannot be decoded: conversion from LAB"),
    "dicom mark alone": (bytes(128) + b"DICM", "holds no image"),
    "dicom without pixels": (dicom(ODD, PixelData=None), "holds no image"),
    "dicom without size": (dicom(ODD, Rows=None), "the DICOM header lacks Rows"),
    "dicom cut": (dicom(ODD)[:-50], "cannot be decoded: "),
    "dicom of several frames": (dicom(ODD, NumberOfFrames=8), "holds 8 frames\n\nhint: store one film per file"),
    "dicom bomb": (dicom(ODD, Rows=60000, Columns=60000), "more than the 64 million"),
    "dicom of height 0": (dicom(ODD, Rows=0), "32 x 0 pixels"),
    "dicom deflated": (dicom(ODD, DeflatedExplicitVRLittleEndian), "deflated DICOM is not read"),
    "dicom with palette": (
        dicom(ODD, PhotometricInterpretation="PALETTE COLOR"),
        "the palette of the DICOM film cannot be used: a lookup table is unusable: it lacks its descriptor or data",
    ),
    "dicom of gray in three channels": (
        dicom(np.stack([ODD] * 3, 2), PhotometricInterpretation="MONOCHROME2"),
        "of kind MONOCHROME2 in 3 channels are not read",
    ),
    "dicom of padding alone": (dicom(ODD * 0, PixelPaddingValue=0), "nothing but padding"),
    "dicom with damaged jpeg": (dicom(ODD, JPEGBaseline8Bit, JPEG[:150]), "cannot be decoded: "),
    "dicom with unknown syntax": (dicom(ODD, UID("1.2.3.4"), b"12"), "cannot be decoded: "),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore")
def test_bad_film_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(content, 64, "squash")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert "0x" not in str(caught.value), "a reason must not change from run to run"
    film = tmp_path / "film.jpeg"
    film.write_bytes(content)
    assert inspect_file(film) == FileFacts(0, 0, "", "")


@pytest.mark.parametrize("content", [JPEG, PNG, encode(ODD, "TIFF", compression="tiff_lzw"), dicom(ODD)])
@pytest.mark.filterwarnings("ignore")
def test_random_damage_raises_nothing_else(content: bytes) -> None:
    rng = np.random.default_rng(3)
    reasons = []
    for _ in range(100):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 6)] = rng.integers(0, 256, 6)
        try:
            assert read_image(damaged.tobytes(), 32, "crop").shape == (32, 32)
        except ImageError as error:
            reasons.append(error.message)
    assert reasons
    assert "\n" not in "".join(reasons)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    np.testing.assert_array_equal(decode_gray(JPEG + bytes(1000)), decode_gray(JPEG))


def test_missing_film_is_an_os_error(tmp_path: Path) -> None:
    for read in (inspect_file, decode_gray):
        with pytest.raises(FileNotFoundError, match="absent"):
            read(tmp_path / "absent.jpeg")


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    film = tmp_path / "film.jpeg"
    film.write_bytes(dicom(GRAY, PhotometricInterpretation="MONOCHROME1"))
    facts = inspect_file(film)
    assert (facts.width, facts.height, facts.mode) == (320, 240, "MONOCHROME1")


def test_pixel_hash_tells_pixels_and_shape_alone(tmp_path: Path) -> None:
    def inspected(content: bytes) -> FileFacts:
        (tmp_path / "film").write_bytes(content)
        return inspect_file(tmp_path / "film")

    gray, rgb = inspected(encode(GRAY, "PNG")), inspected(encode(in_mode("RGB"), "TIFF"))
    assert (gray.mode, rgb.mode) == ("L", "RGB")
    assert gray.pixel_sha256 == rgb.pixel_sha256
    assert len(gray.pixel_sha256) == 64
    other = GRAY.copy()
    other[0, 0] += 1
    hashes = {inspected(encode(pixels, "PNG")).pixel_sha256 for pixels in (GRAY, other, GRAY.reshape(320, 240))}
    assert len(hashes) == 3
    same = {inspected(encode(image, "JPEG")).pixel_sha256 for image in (in_mode("L"), in_mode("RGB"))}
    assert len(same) == 1


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (1, 500), (500, 3), (50, 70), (700, 500)])
def test_fit_gives_a_square(shape: tuple[int, int], fit: str) -> None:
    fitted = fit_picture(Image.fromarray(np.full(shape, 77, np.uint8)), 64, fit)
    assert (fitted.shape, fitted.dtype) == ((64, 64), np.uint8)
    assert fitted.flags.writeable
    inside = fitted if fit != "pad" else fitted[fitted > 0]
    assert (inside == 77).all()
    assert inside.size


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_fit_leaves_a_square_of_the_right_size_alone(fit: str) -> None:
    square = GRAY[:200, :200]
    np.testing.assert_array_equal(fit_picture(Image.fromarray(square), 200, fit), square)


def test_squash_averages_what_it_shrinks() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (100, 400))
    assert np.abs(fit_picture(Image.fromarray(stripes), 100, "squash")[:, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("shape", [(240, 320), (320, 240)])
def test_crop_is_resize_of_the_shorter_side_then_centre_crop(shape: tuple[int, int]) -> None:
    film = GRAY if shape == GRAY.shape else np.ascontiguousarray(GRAY.T)
    resized = np.asarray(Image.fromarray(film).resize((160, 120) if shape == (240, 320) else (120, 160), 2))
    expected = resized[:, 20:140] if shape == (240, 320) else resized[20:140]
    assert np.median(np.abs(fit_picture(Image.fromarray(film), 120, "crop").astype(int) - expected)) <= 1


def test_pad_keeps_the_aspect_ratio_between_black_bars() -> None:
    for film, turn in ((np.full((100, 200), 50, np.uint8), 0), (np.full((200, 100), 50, np.uint8), 1)):
        fitted = np.rot90(fit_picture(Image.fromarray(film), 80, "pad"), turn)
        assert (fitted[:20] == 0).all()
        assert (fitted[20:60] == 50).all()
        assert (fitted[60:] == 0).all()


def test_unknown_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fit must be squash, crop or pad, got 'letterbox'"):
        fit_picture(Image.fromarray(GRAY), 64, "letterbox")


@pytest.mark.parametrize(
    ("hint", "scale"), [(None, 1), (160, 1), (161, 1), (107, 1), (106, 1), (80, 2), (81, 1), (20, 2)]
)
def test_jpeg_is_reduced_only_where_one_and_a_half_times_the_target_remains(hint: int | None, scale: int) -> None:
    film = encode(GRAY, "JPEG")
    assert decode_gray(film, hint).shape == (240 // scale, 320 // scale)
    assert decode_gray(encode(GRAY, "PNG"), hint).shape == GRAY.shape


def test_read_image_is_decode_then_fit(tmp_path: Path) -> None:
    film = encode(GRAY, "JPEG")
    (tmp_path / "film").write_bytes(film)
    expected = fit_picture(Image.fromarray(decode_gray(film, 50)), 50, "crop")
    np.testing.assert_array_equal(read_image(film, 50, "crop"), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "film", 50, "crop"), expected)


@pytest.mark.real
@pytest.mark.parametrize("size", [64, 128, 224, 320])
def test_originals_differ_by_less_than_a_gray_level_from_pillow(originals: Path, size: int) -> None:
    films = sorted(originals.rglob("*.jpeg"))
    assert len(films) == 140
    for film in films[:: 1 if size == 224 else 7]:
        with Image.open(film) as image:
            expected = np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))
        assert mean_difference(read_image(film, size, "squash"), expected) < 1, film.name


@pytest.mark.real
def test_originals_are_described_as_stored(originals: Path) -> None:
    films = sorted(originals.rglob("*.jpeg"))
    facts = [inspect_file(film) for film in films]
    assert sorted({fact.mode for fact in facts}) == ["L", "RGB"]
    assert sum(fact.mode == "RGB" for fact in facts) == 11
    for film, fact in zip(films, facts, strict=True):
        with Image.open(film) as image:
            assert (fact.width, fact.height) == image.size
            if image.mode == "RGB":
                np.testing.assert_array_equal(decode_gray(film), np.asarray(image)[..., 0])
