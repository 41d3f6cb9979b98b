"""Damaged films by the thousand: no crash, no answer later than 5 s, and no error but the decoder's own.

Run from the project's root: `python bench/fuzz.py [SECONDS] [SEED]`, of which each format gets its share, and the
readers of headers, which see every file first, theirs. Each runs in a process of its own, so that a crash is seen. What
fails is written to the current folder as crash-<hash>; one kind alone: `python bench/fuzz.py --kind PNG SECONDS SEED`.
"""

import contextlib
import hashlib
import io
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from film_files import GRAY, TWELVE, TWELVE_BITS, dicom, encode

from pulmo.images.codestream import read_codestream
from pulmo.images.decode import read_image
from pulmo.images.film import ImageError
from pulmo.images.guard import is_foreign

LATEST = 5.0  # seconds
SMALL = GRAY[::5, ::5]
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
COLOUR = Image.fromarray(np.stack([SMALL, SMALL // 2, 255 - SMALL], 2))


def jpegs() -> Iterator[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    for image in (Image.fromarray(NOISE), COLOUR, COLOUR.convert("CMYK")):
        for options in ({}, {"progressive": True}, {"quality": 95}, {"exif": exif}):
            yield encode(image, "JPEG", **options)
    yield encode(NOISE, "MPO", save_all=True, append_images=[Image.new("L", (16, 16))])


def pngs() -> Iterator[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = Image.fromarray(NOISE.astype(np.uint16) * 257)
    for image in (Image.fromarray(NOISE), COLOUR, COLOUR.convert("RGBA"), COLOUR.convert("P"), deep):
        yield encode(image, "PNG")
        yield encode(image, "PNG", exif=exif, optimize=True)
    import cv2

    for channels in (3, 4):
        done, content = cv2.imencode(".png", np.stack([NOISE.astype(np.uint16) * 200] * channels, 2))
        assert done
        yield content.tobytes()


def tiffs() -> Iterator[bytes]:
    import cv2

    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield encode(Image.fromarray(NOISE), "TIFF", compression=compression)
        yield encode(COLOUR, "TIFF", compression=compression)
    yield encode(Image.fromarray(NOISE > 99), "TIFF", compression="group4")
    yield encode(Image.fromarray(NOISE.astype(np.float32)), "TIFF")
    done, content = cv2.imencode(".tiff", np.stack([NOISE.astype(np.uint16) * 200] * 3, 2))
    assert done
    yield content.tobytes()


def webps() -> Iterator[bytes]:
    for image in (COLOUR, COLOUR.convert("RGBA"), Image.fromarray(NOISE).convert("RGB")):
        for options in ({}, {"lossless": True}):
            yield encode(image, "WEBP", **options)
    yield encode(COLOUR, "WEBP", save_all=True, append_images=[COLOUR.rotate(180)])


def bmps() -> Iterator[bytes]:
    for image in (Image.fromarray(NOISE), COLOUR, COLOUR.convert("P"), Image.fromarray(NOISE > 99)):
        yield encode(image, "BMP")
    head = struct.pack("<2sIIIIiiHHIIIIII", b"BM", 0, 0, 1078, 40, 64, 48, 1, 8, 1, 0, 0, 0, 256, 0)
    rows = b"".join(bytes([20, row, 0, 10, *NOISE[row, :10], 34, 255 - row, 0, 0]) for row in range(48))
    yield head + b"".join(bytes([level] * 3 + [0]) for level in range(256)) + rows + b"\0\1"


def dicoms() -> Iterator[bytes]:
    import pydicom
    from pydicom.data import get_testdata_file
    from pydicom.dataset import Dataset
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

    twelve = TWELVE[::5, ::5].copy()
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], bytes(4096)
    table["LUTData"].VR = "OW"
    window = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": -1000}
    yield dicom(twelve, VOILUTSequence=[table], **TWELVE_BITS)
    yield dicom(twelve, **window, **TWELVE_BITS)
    yield dicom(twelve)[132:]
    yield dicom(NOISE, JPEGBaseline8Bit, encode(NOISE, "JPEG"))
    yield dicom(NOISE, JPEG2000Lossless, encode(NOISE, "JPEG2000", no_jp2=True))
    yield dicom(NOISE, JPEG2000Lossless, encode(NOISE, "JPEG2000"))
    for name in ("JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "JPGExtended.dcm"):
        yield Path(str(get_testdata_file(name, download=False))).read_bytes()
    rle = pydicom.dcmread(io.BytesIO(dicom(twelve)))
    rle.compress(RLELossless)
    file = io.BytesIO()
    rle.save_as(file)
    yield file.getvalue()


KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "JPEG": jpegs,
    "PNG": pngs,
    "TIFF": tiffs,
    "WebP": webps,
    "BMP": bmps,
    "DICOM": dicoms,
    "headers": lambda: chain(dicoms(), jpegs(), pngs()),
}


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or overwrite at a few places, most of them early, where headers are."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        early = rng.random() < 0.6
        place = int(rng.integers(min(len(data), 1000) if early else len(data)))
        size = int(rng.integers(1, 9))
        match rng.integers(6):
            case 0:
                data[place] ^= 1 << rng.integers(8)
            case 1:
                data[place] = rng.choice([0, 1, 127, 128, 254, 255])
            case 2:
                data[place : place + size] = rng.bytes(size)
            case 3:
                data[place : place + size] = b"\xff" * size
            case 4:
                data[place:place] = data[place : place + int(rng.integers(1, 200))]
            case _:
                del data[place : place + size if rng.random() < 0.9 else len(data)]
        data = data or bytearray(b"\0")
    return bytes(data)


def right_checksums(png: bytes) -> bytes:
    """A damaged PNG, its checksums made anew, so that what lies behind them is reached."""
    data, place = bytearray(png), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def read_headers(content: bytes) -> None:
    """All that is read of a film before it is known whether it is decoded in a process of its own."""
    is_foreign(content)
    for start in (0, content.find(b"\xff\xd8"), content.find(b"\xff\x4f\xff\x51")):
        with contextlib.suppress(ImageError):
            read_codestream(content[max(start, 0) :])


def fuzz(kind: str, seconds: float, seed: int) -> None:
    """Print figures of one kind; the input that is being decoded lies in `current`, should this process end."""
    warnings.simplefilter("ignore")
    rng, seeds = np.random.default_rng(seed), list(KINDS[kind]())
    count = shown = died = bad = 0
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        content = damage(seeds[rng.integers(len(seeds))], rng)
        if kind == "PNG" and count % 4:
            content = right_checksums(content)
        Path(f"current-{kind}").write_bytes(content)
        began = time.monotonic()
        reason = ""
        try:
            read_headers(content) if kind == "headers" else read_image(content, 64, "pad")
            shown += 1
        except ImageError as error:
            reason = error.message
        except Exception as error:
            bad += 1
            print(f"  {keep(content)}: {type(error).__name__}: {error}", flush=True)
        lasted = time.monotonic() - began
        slowest, count = max(slowest, lasted), count + 1
        if "ended its process" in reason or "any film of its size" in reason:
            died += 1
            print(f"  {keep(content)}: {reason}", flush=True)
        if lasted > LATEST:
            bad += 1
            print(f"  {keep(content)}: {lasted:.1f} s", flush=True)
    Path(f"current-{kind}").unlink()
    figures = f"{count:,} films, {shown:,} shown, {died} ended their worker, slowest {slowest:.2f} s"
    print(f"{kind}: {figures}, {bad} failures")
    sys.exit(bool(bad))


def keep(content: bytes) -> str:
    name = f"crash-{hashlib.sha256(content).hexdigest()[:12]}"
    Path(name).write_bytes(content)
    return name


def main() -> None:
    """Fuzz each kind for its share of the seconds."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600
    seed = sys.argv[2] if len(sys.argv) > 2 else "0"
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind, str(seconds / len(KINDS)), seed]
        status = subprocess.run(command, check=False).returncode
        if status < 0:
            content = Path(f"current-{kind}").read_bytes()
            print(f"{kind}: ended by signal {-status} on {keep(content)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--kind"]:
        fuzz(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
