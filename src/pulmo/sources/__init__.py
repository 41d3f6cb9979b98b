"""The sources of films. A source fills an empty folder and lists what it put there; SOURCES is the list of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pulmo.films.rows.table import Listed
from pulmo.sources import folder, huggingface, kaggle, phantom

Fetched = tuple[list[Listed], dict[str, str]]  # the films, and where they come from


SOURCES: dict[str, Callable[..., Fetched]] = {
    "phantom": phantom.fetch,
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
