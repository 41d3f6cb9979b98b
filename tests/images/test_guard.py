"""A film that ends, freezes or fills the process that decodes it costs itself alone, and a lack of memory is none."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from film_files import GRAY, ODD, TWELVE, TWELVE_BITS, dicom, encode
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from pulmo.images import guard
from pulmo.images.decode import decode_film, decode_gray
from pulmo.images.film import ImageError
from pulmo.images.limits import hold_pixels

FOREIGN = dicom(TWELVE, **TWELVE_BITS)
JPEG, PNG = encode(GRAY, "JPEG"), encode(GRAY, "PNG")


def workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "pulmo.images.worker" in child.cmdline()]


@pytest.fixture
def one_worker() -> Iterator[psutil.Process]:
    guard._end_workers()
    decode_gray(FOREIGN)
    (worker,) = workers()
    yield worker
    guard._end_workers()


@pytest.mark.parametrize("content", [encode(GRAY, "JPEG"), encode(GRAY, "PNG"), b"no film"])
def test_ordinary_films_start_no_process(content: bytes) -> None:
    guard._end_workers()
    try:
        decode_film(content, None)
    except ImageError:
        assert content == b"no film"
    assert not workers()


@pytest.mark.parametrize(
    "content",
    [encode(GRAY, "TIFF"), encode(GRAY, "WEBP"), encode(GRAY, "BMP"), FOREIGN, FOREIGN[132:], JPEG[:20] + FOREIGN[20:]],
)
def test_foreign_films_share_a_process_of_their_own(content: bytes, one_worker: psutil.Process) -> None:
    assert decode_film(content, None).image.size == (320, 240)
    assert workers() == [one_worker]


def test_a_worker_that_dies_costs_its_film_alone(one_worker: psutil.Process) -> None:
    expected = decode_gray(FOREIGN)
    one_worker.suspend()
    killer = threading.Timer(0.5, lambda: os.kill(one_worker.pid, signal.SIGSEGV))
    killer.start()
    os_continue = threading.Timer(0.6, one_worker.resume)
    os_continue.start()
    with pytest.raises(ImageError, match=r"ended its process \(SIGSEGV\)"):
        decode_gray(FOREIGN)
    np.testing.assert_array_equal(decode_gray(FOREIGN), expected)


def test_a_worker_that_died_between_films_is_replaced(one_worker: psutil.Process) -> None:
    one_worker.kill()
    while one_worker.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert decode_gray(FOREIGN).shape == GRAY.shape


def test_workers_end_with_the_process_that_started_them() -> None:
    script = (
        "import sys, time; from pulmo.images.decode import decode_gray\n"
        "decode_gray(sys.stdin.buffer.read()); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(FOREIGN)
        process.stdin.close()
        process.stdout.readline()
        children = psutil.Process(process.pid).children()
        process.kill()
    assert children
    assert not psutil.wait_procs(children, timeout=20)[1]


def run(script: str, *arguments: str, memory: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a script, with no more address space than `memory` MB."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({memory} << 20,) * 2)\n" if memory else ""
    command = [sys.executable, "-c", limit + script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_time_and_memory_of_a_film_are_limited() -> None:
    assert run("from pulmo.images.limits import *; limit_film(0)\nwhile True: pass").returncode == -signal.SIGPROF
    filled = run("from pulmo.images.limits import *; limit_film(0); bytearray(2**30)")
    assert "MemoryError" in filled.stderr
    allowed = run("from pulmo.images.limits import *; limit_film(0); allow_pixels(50_000_000); bytearray(2**30)")
    assert allowed.returncode == 0


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_short_memory_is_no_damage(kind: str, tmp_path: Path) -> None:
    film = tmp_path / "large.film"
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    film.write_bytes(encode(Image.linear_gradient("L").resize((7900, 7900)), kind, **options))
    inspect = "import sys, pathlib; from pulmo.images.inspect import inspect_file\n"
    inspect += "print(inspect_file(pathlib.Path(sys.argv[1])).width)"
    assert run(inspect, str(film)).stdout == "7900\n"
    short = run(inspect, str(film), memory=300)
    assert short.returncode == 1
    last = [line for line in short.stderr.splitlines() if "Shortage" in line][-1]
    assert f"{film}: decoding takes about" in last
    assert "MB of memory" in last


def repeated_scans(jpeg: bytes, times: int) -> bytes:
    scan = jpeg.rfind(b"\xff\xda")
    return jpeg[:-2] + jpeg[jpeg.rfind(b"\xff\xc4", 0, scan) : -2] * times + jpeg[-2:]


def chained_pages(count: int) -> bytes:
    content = bytearray(b"II*\0\x08\0\0\0")
    for page in range(count):
        after = len(content) + 42 if page < count - 1 else 0
        entries = ((256, 3, 16), (257, 3, 16), (273, 4, 8))
        content += struct.pack("<H", 3) + b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries)
        content += struct.pack("<I", after)
    return bytes(content)


def impossible_precision() -> bytes:
    jpeg = bytearray(encode(ODD, "JPEG"))
    jpeg[jpeg.find(b"\xff\xc0") + 4] = 152
    return bytes(jpeg)


LARGE = encode(Image.new("L", (8000, 8000), 7), "JPEG2000", no_jp2=True)
HOSTILE = {
    "precision 152": dicom(ODD, JPEGBaseline8Bit, impossible_precision()),
    "precision 152 in JPEG-LS": dicom(ODD, JPEGLSLossless, impossible_precision()),
    "box of length 0": dicom(ODD, JPEG2000Lossless, b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(8)),
    "codestream larger than the header": dicom(ODD, JPEG2000Lossless, LARGE),
    "boxed codestream larger than the header": dicom(
        ODD, JPEG2000Lossless, encode(Image.new("L", (8000, 8000), 7), "JPEG2000")
    ),
    "many pages": chained_pages(50_000),
    "many scans": repeated_scans(encode(Image.new("L", (4000, 4000), 7), "JPEG", progressive=True), 300),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_film_is_refused_at_once(name: str, one_worker: psutil.Process) -> None:
    began = sum(one_worker.cpu_times()[:2]) + time.process_time()
    with pytest.raises(ImageError):
        decode_gray(HOSTILE[name])
    assert sum(one_worker.cpu_times()[:2]) + time.process_time() - began < 1
    assert one_worker.memory_info().vms < 1e9
    assert workers() == [one_worker], "the door should be closed before the worker dies"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """A film with chunks before one of its own."""
    place = PNG.find(before) - 4
    return PNG[:place] + chunks + PNG[place:]


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(segments: bytes) -> bytes:
    return JPEG[:20] + segments + JPEG[20:]


def claiming_exif(size: int) -> bytes:
    """EXIF of `size` bytes, each of whose entries claims all of them."""
    entries = b"".join(struct.pack("<HHII", tag, 7, size - 8, 8) for tag in range((size - 14) // 12))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries) // 12) + entries).ljust(size, b"\0")


def row_by_row(width: int) -> bytes:
    """A BMP that says no more of its only row than that it ends."""
    head = struct.pack("<2sIIIIiiHHIIIIII", b"BM", 1082, 0, 1078, 40, width, 1, 1, 8, 1, 4, 0, 0, 256, 0)
    return head + bytes(range(256)) * 4 + b"\1\0" + b"\0\0\0\1"


EXIF = claiming_exif(400_000)
BOMB = zlib.compress(bytes(2**20))
UNUSUAL = {
    "a BMP row without pixels": row_by_row(60_000_000),
    "a million segments in a JPEG": jpeg_with(segment(0xFE) * 1_000_000),
    "claiming EXIF in a JPEG": jpeg_with(
        b"".join(segment(0xE1, b"Exif\0\0" + EXIF[at : at + 65_000]) for at in range(0, len(EXIF), 65_000))
    ),
    "junk between the segments of a JPEG": jpeg_with(bytes(10)),
    "arithmetic coding": JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "a million chunks in a PNG": png_with(chunk(b"IDAT") * 1_000_000),
    "chunks after the pixels of a PNG": png_with(chunk(b"abCd") * 1_000_000, before=b"IEND"),
    "profiles that unpack to a gigabyte": png_with(chunk(b"iCCP", b"x\0\0" + BOMB) * 1000),
    "texts that unpack to a gigabyte": png_with(chunk(b"zTXt", b"x\0\0" + BOMB) * 1000),
    "claiming EXIF in a PNG": png_with(chunk(b"eXIf", EXIF)),
    "claiming EXIF in a text": png_with(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\n" + EXIF.hex().encode()))
    ),
    "an animation": png_with(chunk(b"acTL", struct.pack(">II", 2**31, 0))),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_jpeg_png_or_bmp_costs_little_and_this_process_nothing(
    name: str, one_worker: psutil.Process
) -> None:
    before, began = psutil.Process().memory_info().rss, time.process_time()
    with contextlib.suppress(ImageError):
        decode_gray(UNUSUAL[name])
    assert time.process_time() - began < 0.5
    assert psutil.Process().memory_info().rss - before < 50e6
    assert sum(one_worker.cpu_times()[:2]) < 5
    assert workers() == [one_worker]


def test_reported_hostile_films_are_refused(shared: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(shared / "cases" / "make_hostile.py"), str(tmp_path / "out")], check=True)
    films = sorted((tmp_path / "out").iterdir())
    assert len(films) >= 8
    decode_gray(FOREIGN)
    for film in films:
        began = time.monotonic()
        with pytest.raises(ImageError):
            decode_gray(film)
        assert time.monotonic() - began < 5, film.name
    assert decode_gray(FOREIGN).shape == GRAY.shape


def test_jpeg_in_dicom_keeps_its_colours() -> None:
    colour = np.stack([GRAY, GRAY // 2, 255 - GRAY], 2)
    luma = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    plain = encode(Image.fromarray(colour), "JPEG", quality=95, subsampling=0)
    raw = encode(Image.fromarray(colour), "JPEG", quality=95, keep_rgb=True)
    for jpeg, mode in ((plain, "YBR_FULL_422"), (raw, "RGB")):
        decoded = decode_gray(dicom(colour, JPEGBaseline8Bit, jpeg, PhotometricInterpretation=mode))
        assert np.abs(decoded - luma).mean() < 2


@pytest.mark.parametrize(("pixels", "together"), [(20_000_000, 1), (1_000_000, 3)])
def test_pixels_in_flight_are_bounded(pixels: int, together: int) -> None:
    count, most = 0, 0

    def hold() -> None:
        nonlocal count, most
        with hold_pixels(pixels):
            count += 1
            most = max(most, count)
            time.sleep(0.3)
            count -= 1

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == together


def test_deep_colour_is_foreign(one_worker: psutil.Process) -> None:
    done, content = cv2.imencode(".png", np.stack([TWELVE] * 3, 2))
    assert done
    np.testing.assert_array_equal(decode_gray(content.tobytes()), decode_gray(encode(Image.fromarray(TWELVE), "PNG")))
    assert workers() == [one_worker]
