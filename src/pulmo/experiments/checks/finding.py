"""The result of a check."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """The result of a check; `cure` is empty where there is nothing to do."""

    state: Literal["ok", "warning", "error"]
    text: str
    cure: str = ""


def name_few(names: list[str]) -> str:
    """The first two names in alphabetical order, and the number of the others."""
    return ", ".join(sorted(names)[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
