"""The film table made, and what is found out on the way kept for later runs, by this machine or a Ray cluster."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pulmo.base.blocks import Blocks
from pulmo.base.cluster import join_cluster
from pulmo.films.remote import FilmFile
from pulmo.films.rows.table import Listed
from pulmo.images.film_store import FilmStore
from pulmo.images.manifest import Measured, describe_films, facts_store, measure_film

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 32  # films per task


class Keeping(NamedTuple):
    """Where facts about films are kept, in up to `most` GB below `folder`, and what else."""

    folder: Path
    most: float
    size: int  # that films are decoded to
    fit: str
    decoded: bool  # True = films too, decoded, for what may come from afar is read once, for preprocess too


def describe_and_keep(raw: Path, listed: Sequence[Listed], keeping: Keeping, engine: str = "local") -> "pd.DataFrame":
    """The film table of all that a source listed, the same from both engines (local or ray)."""
    if engine == "ray":
        return describe_films(raw, listed, measure=partial(_measure_on_cluster, keeping))
    facts, films = _open(keeping, len(listed))
    with facts, films:
        return describe_films(raw, listed, known=facts, on_read=films.add if keeping.decoded else None)


def _open(keeping: Keeping, listed: int) -> tuple[Blocks, FilmStore]:
    """The stores of facts and of films; these leave room for an array of all that are `listed`."""
    films = FilmStore(keeping.size, keeping.fit, keeping.folder, keeping.most)
    films.leave_room(listed)
    return facts_store(keeping.folder, keeping.most), films


def _measure_on_cluster(keeping: Keeping, files: Sequence[FilmFile]) -> Iterator[Measured]:
    measure = partial(_measure, keeping._replace(folder=keeping.folder.absolute()), len(files))
    with join_cluster() as cluster:
        parts = (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
        for measured in cluster.map(partial(measure, part) for part in parts):
            yield from measured


def _measure(keeping: Keeping, listed: int, files: Sequence[FilmFile]) -> list[Measured]:
    facts, films = _open_once(keeping, listed)
    return [measure_film(file, facts, films.add if keeping.decoded else None) for file in files]


_open_once = cache(_open)  # the stores of a task's process, in files of its own, which end with it
