"""Films that earlier runs decoded, by what they were decoded from and to, for those that come after.

DVC empties the outputs of a stage before it runs, so what a killed run had done, and what is the same as last time, is
kept beside them.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from pulmo.base.blocks import GB, Blocks
from pulmo.images.decode import read_film
from pulmo.images.film import FittedFilm, ImageError
from pulmo.images.stamp import decoding_stamp

_END = b"\0"  # of the texts of a film, behind which come its pixels


class FilmStore:
    """Films of `size` x `size` pixels, fitted as `fit` says, in up to `most` GB below `folder`; none without one.

    A film is found by the SHA-256 of its file, as long as the code that decodes is the same. To delete the folder costs
    nothing but the time to decode again.
    """

    def __init__(self, size: int, fit: str, folder: Path | None = None, most: float = 0) -> None:
        self.size, self.fit = size, fit
        self._blocks = Blocks(folder, f"{size}-{fit}-{decoding_stamp()}", round(most * GB))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.close()

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256) in self._blocks

    def get(self, sha256: str) -> FittedFilm | None:
        """The film whose file has this hash, where it is there and whole."""
        if not (value := self._blocks.get(bytes.fromhex(sha256))):
            return None
        texts, _, pixels = value.partition(_END)
        return FittedFilm(np.frombuffer(pixels, np.uint8).reshape(self.size, self.size), *json.loads(texts))

    def put(self, sha256: str, film: FittedFilm) -> None:
        """Keep a film, where there is room."""
        texts = json.dumps(film[1:]).encode()
        self._blocks.put(bytes.fromhex(sha256), texts + _END + film.pixels.tobytes())

    def add(self, sha256: str, content: bytes) -> None:
        """Decode the content of a file that has this hash and keep the film, unless it is there or cannot be had."""
        if sha256 not in self:
            with suppress(ImageError):
                self.put(sha256, read_film(content, self.size, self.fit))

    def leave_room(self, films: int) -> None:
        """Keep nothing more once the disk has hardly room for an array of so many films."""
        self._blocks.reserve = films * self.size**2 + GB
