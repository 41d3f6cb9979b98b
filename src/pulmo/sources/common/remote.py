"""The films of a folder behind an address."""

from pulmo.base.errors import UserError
from pulmo.films.archive_names import is_hidden, name_problem
from pulmo.films.archives import Entry
from pulmo.films.contents import HEAD, is_film
from pulmo.films.remote import Remote

_AT_ONCE = 1000  # files whose beginning is asked for together


def list_remote(folder: Remote) -> dict[str, Entry]:
    """Every visible file below a folder, by its path relative to it."""
    sizes = {name: size for name, size in folder.list_sizes().items() if not is_hidden(name)}
    entries: dict[str, Entry] = {}
    names = list(sizes)
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        for name, head in zip(some, folder.read_heads(some, HEAD), strict=True):
            film = is_film(name, head)
            if film and (problem := name_problem(name)):
                raise UserError(f"{folder}: {name!a} {problem}", "rename it")
            entries[name] = Entry(sizes[name], film)
    return entries
