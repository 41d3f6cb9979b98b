"""Archives from anywhere, listed and unpacked without trusting a word of them.

Refused as a whole, whatever part of it is wanted: an archive that is damaged or cut short, that holds a member which
would leave the target folder, a link, a device or an encrypted file, or that unpacks to far more than it weighs.
"""

import bz2
import errno
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from pulmo.base.errors import UserError
from pulmo.films.archive_names import (
    AS_BYTES,
    guess_encoding,
    is_hidden,
    leaves_folder,
    name_problem,
    tar_name,
    with_slashes,
    zip_name,
)
from pulmo.films.contents import HEAD, MOST_BYTES, TooLarge, is_film, read_stream

MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked bytes per packed byte; X-rays pack 1 to 20 times, a bomb 1,000 times and more
ALWAYS_ALLOWED = 100_000_000  # bytes; an archive that unpacks to less is no bomb, whatever its ratio

_STREAMS: dict[str, Callable[[Path], io.BufferedIOBase]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.bz2": bz2.BZ2File,
    ".tbz2": bz2.BZ2File,
    ".tar.xz": lzma.LZMAFile,
    ".txz": lzma.LZMAFile,
}
ARCHIVE_SUFFIXES = (".zip", *_STREAMS)

_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # which zipfile raises for a later zip version, patched data and strong encryption
    ValueError,  # nonsense in a header: text that is no number, bytes that are no text
    OverflowError,
)

_LINK = ("is a link or a device", "pack the files that it stands for (tar --dereference --hard-dereference)")
_RENAME = "rename it and pack again"


class ArchiveError(UserError):
    """An archive that is damaged or refused. The message names it and says why."""


@dataclass(frozen=True)
class Entry:
    """A file of a source."""

    size: int  # bytes
    is_film: bool  # by its content or suffix


@dataclass(frozen=True)
class _Member:
    name: str
    size: int  # bytes, as declared
    is_folder: bool
    problem: tuple[str, str] | None  # why it is refused, and the hint
    open: Callable[[], IO[bytes] | None]
    is_guessed: bool = False  # the name, for nothing tells its encoding


def is_archive(path: Path) -> bool:
    """True where the name is that of an archive that can be read here."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def list_members(archive: Path, encoding: str = "") -> dict[str, Entry]:
    """The visible files of an archive by their names, forward slashes between; ArchiveError if it is unsafe.

    `encoding`: of names that the archive does not declare as Unicode, as `find_encoding` tells.
    """
    entries: dict[str, Entry] = {}
    with _damage_explained(archive):
        for member in _files(archive, encoding):
            if is_hidden(member.name):
                continue
            content = member.open()
            assert content is not None
            with content:
                film = is_film(member.name, content.read(HEAD))
            if film and (problem := name_problem(member.name)):
                raise ArchiveError(f"{archive} is refused: {member.name[:60]!a} {problem}", _RENAME)
            if film and member.size > MOST_BYTES:
                raise TooLarge(f"{archive}: {member.name!a}")
            entries[member.name] = Entry(member.size, film)
    return entries


def unpack(archive: Path, targets: Mapping[str, Path], encoding: str = "") -> None:
    """Write the members named in `targets` to the paths given there, which must not exist; ArchiveError if unsafe."""
    with _damage_explained(archive), tqdm(total=len(targets), desc="unpack", unit="file", disable=None) as progress:
        for member in _files(archive, encoding):
            if member.name not in targets:
                continue
            target = targets[member.name]
            target.parent.mkdir(parents=True, exist_ok=True)
            content = member.open()
            assert content is not None
            with content, target.open("xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            if target.stat().st_size != member.size:
                raise ArchiveError(
                    f"{archive}: {member.name} does not have the size that the archive declares",
                    "pack it again or download it again",
                )
            progress.update()


def read_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member whose name is wanted, one at a time, in stored order; ArchiveError if unsafe."""
    with _damage_explained(archive):
        for member in _files(archive, ""):
            if wanted(member.name) and (content := member.open()):
                with content:
                    yield member.name, read_stream(content)


def find_encoding(archive: Path, names: Collection[str]) -> str:
    """The legacy encoding under which most members bear one of `names` (file names without folders), or an empty text.

    Neither zip nor tar says in which encoding an older program wrote its names; a CSV beside it does.
    """
    if all(name.isascii() for name in names):
        return ""
    with _damage_explained(archive):
        written = [member.name.encode("utf-8", "surrogateescape") for member in _members(archive, AS_BYTES)]
    return guess_encoding(written, names)


def _files(archive: Path, encoding: str) -> Iterator[_Member]:
    """The regular files of an archive in stored order; the first member that is unsafe ends it with an ArchiveError."""
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size)
    seen: set[str] = set()
    total = 0
    for count, member in enumerate(_members(archive, encoding), 1):
        written = member.name if encoding == AS_BYTES else with_slashes(member.name, member.is_guessed)
        name = str(PurePosixPath(written))
        problem = ("would leave the target folder", _RENAME) if leaves_folder(written) else member.problem
        if problem:
            raise ArchiveError(f"{archive} is refused: {member.name!a} {problem[0]}", problem[1])
        total += member.size
        if total > limit or count > MAX_MEMBERS:
            raise _bomb(archive)
        if member.is_folder or written.endswith("/"):
            continue
        if name in seen:
            raise ArchiveError(f"{archive} is refused: it holds {name} twice", "rename one of the two and pack again")
        seen.add(name)
        yield _Member(name, member.size, False, None, member.open)


def _members(archive: Path, encoding: str) -> Iterator[_Member]:
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size)
    suffix = next((suffix for suffix in _STREAMS if archive.name.lower().endswith(suffix)), "")
    if suffix:
        return _tar_members(archive, _STREAMS[suffix], limit, encoding)
    return _zip_members(archive, encoding)


def _zip_members(archive: Path, encoding: str) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            problem = None
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = _LINK
            elif info.flag_bits & 1:
                problem = ("is encrypted", "pack it again without a password")
            elif info.compress_type not in _ZIP_METHODS:
                problem = (f"is compressed by method {info.compress_type}, which cannot be read", "pack it again")
            name, guessed = zip_name(info, encoding)
            yield _Member(name, info.file_size, info.is_dir(), problem, partial(opened.open, info), guessed)


def _tar_members(
    archive: Path, decompress: Callable[[Path], io.BufferedIOBase], limit: int, encoding: str
) -> Iterator[_Member]:
    with decompress(archive) as content:
        metered = _Metered(content, limit, archive)
        with tarfile.open(fileobj=metered, mode="r:", encoding="utf-8") as opened:
            for info in opened:
                problem = None if info.isdir() or (info.isreg() and not info.issparse()) else _LINK
                name, guessed = tar_name(info.name, encoding)
                yield _Member(name, info.size, info.isdir(), problem, partial(opened.extractfile, info), guessed)
            # tarfile takes a cut or garbled header for the end; the true end is a block of zeros.
            metered.seek(opened.offset)
            if metered.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ArchiveError(f"{archive} is damaged or cut short", "copy or download it again")
            while metered.read(1 << 20):  # to the end, where the checksum of the compressed stream is
                pass


class _Metered(io.RawIOBase):
    """A decompressed stream that refuses to be read beyond `limit` bytes, so that a bomb costs no time or memory."""

    def __init__(self, stream: io.BufferedIOBase, limit: int, archive: Path) -> None:
        super().__init__()
        self._stream, self._limit, self._archive = stream, limit, archive

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(position, whence)

    def read(self, size: int = -1, /) -> bytes:
        if size > self._limit or self._stream.tell() > self._limit:
            raise _bomb(self._archive)
        return self._stream.read(size)


def _bomb(archive: Path) -> ArchiveError:
    return ArchiveError(
        f"{archive} is refused: it unpacks to more than {MAX_RATIO} times its size or {MAX_MEMBERS:,} files, "
        "as a decompression bomb does",
        "unpack it yourself and name the folder if you trust it",
    )


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except ArchiveError:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: sent to a negative offset
            raise  # the disk's trouble, not the archive's
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{archive} is damaged or cut short ({detail})", "copy or download it again") from error
