"""The result of a check."""

from typing import Literal, NamedTuple

State = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """The result of a check; `cure` is empty where there is nothing to do."""

    state: State
    text: str
    cure: str = ""


def name_few(names: list[str]) -> str:
    """The first two names in alphabetical order, and the number of the others."""
    return ", ".join(sorted(names)[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
