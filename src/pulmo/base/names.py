"""Names that people type and files hold: checked before they reach a query, a path or a command."""

import re

from pulmo.base.errors import UserError

NAME = r"[A-Za-z][\w-]{0,59}"


def check_name(name: str, kind: str) -> str:
    """The name of a recipe or sweep; UserError where it is a path, an option, or nothing."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} is no name of a {kind}", "use up to 60 letters, digits, - and _, a letter first")
    return name


def check_reference(text: str) -> str:
    """Return `text` where it can name an experiment, commit or run; UserError where it can name none of them."""
    if not text.strip() or not text.isprintable() or text.startswith("-") or {"'", '"'} <= set(text) or "\\" in text:
        raise UserError(f"{text!r} names no experiment, commit or run", "`pulmo experiments` lists them")
    return text


def show_name(text: str) -> str:
    """A name from outside on one line of a terminal: what cannot be printed, or would steer it, as an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
