"""The sources of films. A source fills an empty folder and lists what it put there; SOURCES is the list of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pulmo.films.table import Listed
from pulmo.sources import folder, huggingface, kaggle, phantom

Fetched = tuple[list[Listed], dict[str, str]]  # the films, and where they come from


def _draw_phantom(raw: Path, films: int, seed: int) -> Fetched:
    listed = [Listed(*film) for film in phantom.fetch(raw, films, seed)]
    return listed, {"source": "phantom", "films": str(films), "seed": str(seed)}


SOURCES: dict[str, Callable[..., Fetched]] = {
    "phantom": _draw_phantom,
    "kaggle": kaggle.fetch,
    "huggingface": huggingface.fetch,
    "folder": folder.fetch,
}


def fetch_source(name: str, settings: Mapping[str, Any], raw: Path) -> Fetched:
    """Fill the empty folder `raw` from the source `name`; the films in it, and where they come from for the record.

    `settings` are the arguments of the source's own `fetch`. What a user can cause is a UserError, a
    failing disk an OSError.
    """
    return SOURCES[name](raw, **settings)
