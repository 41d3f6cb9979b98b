"""Archives: what is read, and what is refused before anything is written."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import hubs
import pytest

from pulmo.films import archives
from pulmo.films.archives import ArchiveError, is_archive, list_members, unpack

FILMS = {"train/NORMAL/1.jpeg": b"one" * 500, "Lunge/PNEUMONIA/größe 胸部.png": b"two", "leer.txt": b""}


def zip_entry(name: str, content: bytes = b"film", **attributes) -> bytes:
    """A zip of one good member and one with the given name and header fields."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("good.jpeg", b"good")
        info = zipfile.ZipInfo(name)
        info.filename = name  # ZipInfo itself tidies up
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content)
    return data.getvalue()


def zip_mode(kind: int) -> bytes:
    return zip_entry("link", b"good.jpeg", external_attr=(kind | 0o777) << 16, create_system=3)


def zip_patched(offset: int, form: str, value: int) -> bytes:
    """A zip whose last central directory entry has a field overwritten."""
    data = bytearray(zip_entry("film.jpeg", b"film" * 100))
    struct.pack_into(form, data, data.rfind(b"PK\1\2") + offset, value)
    return bytes(data)


def zip_twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zip_entry("good.jpeg")


def tar_entry(name: str, content: bytes = b"film", mode: str = "w", **attributes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        good = tarfile.TarInfo("good.jpeg")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def tar_declaring(size: int) -> bytes:
    """A gzipped tar whose only member claims `size` bytes."""
    info = tarfile.TarInfo("bomb.jpeg")
    info.size = size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))


def tar_long_name() -> bytes:
    """A gzipped tar with a file name of 200 MB, which a reader would hold in memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"n" * 300_000, 1)


def tar_zeros() -> bytes:
    """A gzipped tar with 101 MB of nothing behind its end."""
    return gzip.compress(tar_entry("film.jpeg"), 1) + gzip.compress(bytes(101_000_000), 1)


def sparse_tar() -> bytes:
    return tar_entry("film.jpeg", b"", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": "9" * 12})


def corrupted(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


ESCAPES = "would leave the target folder"
DAMAGED = "is damaged or cut short"
LINK = "is a link or a device"
BOMB = "as a decompression bomb does"

BAD = {
    "zip: parent folder": ("a.zip", lambda: zip_entry("../evil.jpeg"), ESCAPES),
    "zip: parent folder inside": ("a.zip", lambda: zip_entry("train/../../evil.jpeg"), ESCAPES),
    "zip: parent folder of a folder": ("a.zip", lambda: zip_entry("../evil/", b""), ESCAPES),
    "zip: absolute": ("a.zip", lambda: zip_entry("/etc/evil.jpeg"), ESCAPES),
    "zip: drive letter": ("a.zip", lambda: zip_entry("C:/evil.jpeg"), ESCAPES),
    "zip: backslashes": ("a.zip", lambda: zip_entry("..\\evil.jpeg"), ESCAPES),
    "zip: control character": ("a.zip", lambda: zip_entry("a\nb.jpeg"), "control character"),
    "zip: symbolic link": ("a.zip", lambda: zip_mode(stat.S_IFLNK), LINK),
    "zip: named pipe": ("a.zip", lambda: zip_mode(stat.S_IFIFO), LINK),
    "zip: character device": ("a.zip", lambda: zip_mode(stat.S_IFCHR), LINK),
    "zip: encrypted": (
        "a.zip",
        lambda: zip_patched(8, "<H", 1),
        "is encrypted\n\nhint: pack it again without a password",
    ),
    "zip: unknown compression": ("a.zip", lambda: zip_patched(10, "<H", 97), "compressed by method 97"),
    "zip: a later version of the format": ("a.zip", lambda: zip_patched(6, "<H", 99), "zip file version 9.9"),
    "zip: patched data": ("a.zip", lambda: zip_patched(8, "<H", 32), "patched data"),
    "zip: strong encryption": ("a.zip", lambda: zip_patched(8, "<H", 64), "strong encryption"),
    "zip: declares 100 GB": ("a.zip", lambda: zip_patched(24, "<L", 0xFFFFFFFE), BOMB),
    "zip: declares less than it holds": ("a.zip", lambda: zip_patched(24, "<L", 300), DAMAGED),
    "zip: declares more than it holds": ("a.zip", lambda: zip_patched(24, "<L", 500), "does not have the size"),
    "zip: bomb": ("a.zip", lambda: hubs.zipped({"b.jpeg": bytes(101_000_000)}, zipfile.ZIP_DEFLATED), BOMB),
    "zip: same name twice": ("a.zip", zip_twice, "it holds good.jpeg twice"),
    "zip: bad checksum": ("a.zip", lambda: zip_entry("a.jpeg").replace(b"film", b"filn"), DAMAGED),
    "zip: cut short": ("a.zip", lambda: zip_entry("a.jpeg")[:-10], DAMAGED),
    "zip: cut at the front": ("a.zip", lambda: zip_entry("a.jpeg")[20:], DAMAGED),
    "zip: empty file": ("a.zip", lambda: b"", DAMAGED),
    "zip: a web page": ("a.zip", lambda: b"<html>please log in</html>", DAMAGED),
    "zip: a tar inside": ("a.zip", lambda: tar_entry("a.jpeg"), DAMAGED),
    "tar: parent folder": ("a.tar", lambda: tar_entry("../evil.jpeg"), ESCAPES),
    "tar: absolute": ("a.tar.gz", lambda: gzip.compress(tar_entry("/etc/evil.jpeg")), ESCAPES),
    "tar: name that is not Unicode": ("a.tar", lambda: tar_entry("\udcff.jpeg"), "not Unicode"),
    "tar: symbolic link": ("a.tar", lambda: tar_entry("l", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), LINK),
    "tar: hard link": ("a.tar", lambda: tar_entry("l", b"", type=tarfile.LNKTYPE, linkname="good.jpeg"), LINK),
    "tar: named pipe": ("a.tar", lambda: tar_entry("p", b"", type=tarfile.FIFOTYPE), LINK),
    "tar: device": ("a.tar", lambda: tar_entry("d", b"", type=tarfile.BLKTYPE), LINK),
    "tar: sparse file": ("a.tar", sparse_tar, LINK),
    "tar: declares 1 TB": ("a.tgz", lambda: tar_declaring(10**12), BOMB),
    "tar: endless name": ("a.tgz", tar_long_name, BOMB),
    "tar: bomb behind the end": ("a.tar.gz", tar_zeros, BOMB),
    "tar: same name twice": ("a.tar", lambda: tar_entry("./good.jpeg"), "it holds good.jpeg twice"),
    "tar: cut in a film": ("a.tar", lambda: tar_entry("a.jpeg", b"x" * 5000)[:3000], DAMAGED),
    "tar: cut in a header": ("a.tar", lambda: tar_entry("a.jpeg")[:1100], DAMAGED),
    "tar: cut between films": ("a.tar", lambda: tar_entry("a.jpeg")[:1024], DAMAGED),
    "tar: garbled header": ("a.tar", lambda: corrupted(tar_entry("a.jpeg"), 1030), DAMAGED),
    "tar: a zip inside": ("a.tar", lambda: zip_entry("a.jpeg"), DAMAGED),
    "tar: empty file": ("a.tar", lambda: b"", DAMAGED),
    "tar.gz: cut short": ("a.tar.gz", lambda: gzip.compress(tar_entry("a.jpeg"))[:-12], DAMAGED),
    "tar.gz: bad checksum": ("a.tar.gz", lambda: corrupted(gzip.compress(tar_entry("a.jpeg")), -6), DAMAGED),
    "tar.gz: not gzip": ("a.tar.gz", lambda: tar_entry("a.jpeg"), DAMAGED),
    "tar.bz2: cut short": ("a.tar.bz2", lambda: bz2.compress(tar_entry("a.jpeg"))[:-12], DAMAGED),
    "tar.bz2: not bzip2": ("a.tbz2", lambda: b"x" * 2000, DAMAGED),
    "tar.xz: damaged": ("a.tar.xz", lambda: corrupted(lzma.compress(tar_entry("a.jpeg")), 60), DAMAGED),
}


@pytest.mark.parametrize(("name", "make", "says"), BAD.values(), ids=BAD)
def test_refused_in_one_line(tmp_path, name, make, says):
    archive = tmp_path / name
    archive.write_bytes(make())
    raw = tmp_path / "raw"
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, {member: raw / member for member in list_members(archive)})
    assert says in str(caught.value)
    assert str(archive) in str(caught.value)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} <= {name, "raw"}, "nothing outside of the target"


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    archive = tmp_path / "a.zip"
    archive.write_bytes(hubs.zipped({"1": b"", "2": b""}))
    assert len(list_members(archive)) == 2
    archive.write_bytes(hubs.zipped({"1": b"", "2": b"", "3": b""}))
    with pytest.raises(ArchiveError, match=BOMB):
        list_members(archive)


@pytest.mark.parametrize("suffix", archives.ARCHIVE_SUFFIXES)
def test_every_kind_is_read(tmp_path, suffix):
    archive = tmp_path / f"films{suffix.upper() if suffix == '.zip' else suffix}"
    if suffix == ".zip":
        archive.write_bytes(hubs.zipped({"Lunge/": b""} | FILMS, zipfile.ZIP_DEFLATED))
    else:
        source = tmp_path / "source"
        for name, data in FILMS.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        kind = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tbz2": "w:bz2"}
        with tarfile.open(archive, kind.get(suffix, "w:xz")) as opened:
            opened.add(source, ".")
    assert is_archive(archive)
    assert {name: entry.size for name, entry in list_members(archive).items()} == {
        name: len(data) for name, data in FILMS.items()
    }
    wanted = [name for name in FILMS if name != "leer.txt"]
    unpack(archive, {name: tmp_path / "raw" / name for name in wanted})
    assert hubs.content_of(tmp_path / "raw") == {name: FILMS[name] for name in wanted}


@pytest.mark.parametrize("name", ["films.rar", "films.7z", "film.jpeg", "zip", "films.gz"])
def test_other_files_are_no_archives(name):
    assert not is_archive(Path(name))


def test_an_existing_file_is_never_overwritten(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_entry("a.jpeg"))
    (tmp_path / "mine.jpeg").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        unpack(archive, {"a.jpeg": tmp_path / "mine.jpeg"})
    assert (tmp_path / "mine.jpeg").read_bytes() == b"mine"


def test_a_failing_disk_is_not_called_a_damaged_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_entry("a.jpeg"))
    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught:
        unpack(archive, {"a.jpeg": tmp_path / "raw.jpeg"})
    assert caught.value.errno == 28


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_random_damage_is_told_or_harmless(tmp_path, suffix):
    archive = tmp_path / f"a{suffix}"
    with tarfile.open(archive, "w:gz") if suffix == ".tar.gz" else tarfile.open(archive, "w") as opened:
        for name, data in FILMS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    whole = hubs.zipped(FILMS, zipfile.ZIP_DEFLATED) if suffix == ".zip" else archive.read_bytes()
    chance = random.Random(7)
    refused = 0
    for number in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        archive.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data)
        raw = tmp_path / "out" / str(number)
        try:
            unpack(archive, {member: raw / member for member in list_members(archive)})
        except ArchiveError:
            refused += 1
    assert refused > 50
    assert {path.name for path in tmp_path.iterdir()} <= {archive.name, "out"}
