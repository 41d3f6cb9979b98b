"""Addresses of stores and databases as they may be printed: what lets somebody in stays out."""

import re
from urllib.parse import unquote

HIDDEN = "***"
_FILES = ("sqlite", "file")  # whose address is a path
_PARTS = re.compile(r"(?P<scheme>[\w+.-]*)(?P<colon>:?)//(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d+(?![^/?#]))?")
_IN_TEXT = re.compile(r"[\w+.-]+://\S+|[\w+.-]*//\S*[@?]\S*")


def show_address(address: str) -> str:
    """Scheme and host of an address alone, or the path of a file; *** where a password hides which part is the host."""
    if not (parts := _PARTS.fullmatch(address)):
        return HIDDEN if "@" in address or "?" in address else address
    scheme, rest = parts["scheme"], parts["rest"]
    if scheme.partition("+")[0] in _FILES and rest.startswith("/"):
        return f"{scheme}://{rest.partition('?')[0]}"
    before, _, last = rest.rpartition("@")  # a password may hold / and @ that nobody encoded
    host = None if "?" in before or "#" in before else _HOST.match(last)
    return f"{scheme}{parts['colon']}//{host[0] if host else HIDDEN}"


def join_host(host: str, port: int) -> str:
    """host:port, with brackets around an address of IPv6, whose own colons would hide where the port begins."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hide_secrets(text: str, address: str = "") -> str:
    """A text with each address in it as `show_address` shows it, and *** for what is secret in `address`, which a
    driver may tell piece by piece."""
    if address:
        text = text.replace(address, show_address(address))
    text = _IN_TEXT.sub(lambda match: show_address(match[0]), text)
    for secret in _secrets(address):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def _secrets(address: str) -> list[str]:
    """The password of an address, or the token in its place, the values behind its path, and parts of them."""
    if address.startswith(tuple(f"{scheme}:///" for scheme in _FILES)):
        return []
    rest = address.partition("//")[2] or address
    login, at, last = rest.rpartition("@")
    user, colon, password = login.partition(":")
    query = "".join(re.split("[?#;]", last, maxsplit=1)[1:])
    whole = [password if colon else user] if at else []
    whole += [pair.partition("=")[2] or pair for pair in re.split("[&;#?]", query)]
    pieces = {piece for text in whole for piece in (text, unquote(text), *re.split(r"[/@:?#]", text)) if piece}
    return sorted(pieces, key=len, reverse=True)  # or a part would break up what it is a part of
