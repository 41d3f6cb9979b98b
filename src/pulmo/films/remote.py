"""Films behind an address such as s3://bucket/films, which are asked for as files are."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pulmo.base.errors import UserError
from pulmo.base.paths import own_films

_SCHEME = "s3://"


class Stat(NamedTuple):
    """The fields of `os.stat_result` that tell whether a file has changed."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class Remote:
    """A folder or file at an address. Credentials, and an endpoint other than Amazon's, come from the environment."""

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self.address.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(self.address).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.address).stem

    def read_bytes(self) -> bytes:
        with _explained(self):
            content: bytes = _system().cat_file(self.address)
        return content

    def stat(self) -> Stat:
        with _explained(self):
            facts = _system().info(self.address)
        return Stat(int(facts["size"]), round(facts["LastModified"].timestamp() * 10**9))

    def exists(self) -> bool:
        with _explained(self):
            return bool(_system().exists(self.address))

    def list_sizes(self) -> dict[str, int]:
        """The size of every file below this folder, in bytes, by its path relative to it."""
        with _explained(self):
            listing = _system().find(self.address, detail=True)
        top = self.address.removeprefix(_SCHEME).rstrip("/") + "/"
        return {path.removeprefix(top): int(facts["size"]) for path, facts in listing.items()}

    def read_heads(self, names: Sequence[str], size: int) -> list[bytes]:
        """The first `size` bytes of files below this folder, which are asked for together."""
        with _explained(self):
            heads: list[bytes] = _system().cat_ranges([(self / name).address for name in names], 0, size)
        return heads


FilmFile = Path | Remote


def film_file(text: str) -> FilmFile:
    """The file that a list of films names by its path or address."""
    return Remote(text) if "://" in text else Path(text)


def source_folder(text: str, key: str) -> FilmFile:
    """The folder or archive that `key` of params.yaml names by path or address; UserError where neither can be read."""
    if "://" not in text:
        return own_films(text, key)
    if not text.startswith(_SCHEME):
        raise UserError(f"{key}: {text} is no address that can be read here", f"use {_SCHEME}BUCKET/FOLDER or a path")
    return Remote(text)


@cache
def _make_system(process: int) -> Any:
    import s3fs

    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


def _system() -> Any:
    return _make_system(os.getpid())


@contextmanager
def _explained(remote: Remote) -> Iterator[None]:
    """Errors of the service as UserErrors that name the address; a file that is not there stays a FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "not found", remote.address) from None
    except ImportError:
        raise UserError(f"{remote} cannot be read without s3fs", "pip install 'pulmo[s3]'") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the client has no common type
        cure = "check the address, the network, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        raise UserError(f"{remote} cannot be read ({type(error).__name__}: {error})", cure) from error
