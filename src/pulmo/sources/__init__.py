"""The sources of films. A source fills an empty folder and lists what it put there; SOURCES is the list of them.

What a user can cause is a UserError there, a failing disk an OSError.
"""

from collections.abc import Callable

from pulmo.films.rows.table import Listed
from pulmo.sources import folder, huggingface, kaggle, phantom

Fetched = tuple[list[Listed], dict[str, str]]  # the films, and where they come from

SOURCES: dict[str, Callable[..., Fetched]] = {
    "phantom": phantom.fetch,
    "kaggle": kaggle.fetch,
    "huggingface": huggingface.fetch,
    "folder": folder.fetch,
}
