"""Markdown that holds foreign words safely, and the HTML page of it.

Names of films, groups, runs and packages come from outside. A template escapes every value that is not `Markdown`
already, so that no name writes markup, and a page embeds only the pictures that its report drew.
"""

import base64
import re
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pulmo.reporting.canvas import STYLE

_SHEET = Path(__file__).parent / "templates" / "model_card.css"
_WIDE = 600  # pixels of CSS from which a picture is scrolled on a phone instead of shrunk
_MARKUP = re.compile(r"([\\`*_\[\]<>|~$&#])")


class Markdown(str):
    """Text that is Markdown by intention, and is written as it stands."""

    __slots__ = ()


def to_text(value: object) -> Markdown:
    """The value as plain words in one line: every character that Markdown would read otherwise is escaped."""
    if isinstance(value, Markdown):
        return value
    return Markdown(_MARKUP.sub(r"\\\1", _to_line(value)))


def to_code(value: object) -> Markdown:
    """The value as a span of code, or escaped where a span of code cannot hold it (in a table, | ends a cell)."""
    line = _to_line(value).strip()
    return Markdown(f"`{line}`") if line and not set("`|") & set(line) else to_text(line)


def to_block(value: object) -> Markdown:
    """The value as one line of a block of code."""
    return Markdown(f"    {_to_line(value)}")  # indented: a fence could be closed from inside


def to_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> Markdown:
    """A table of cells that are escaped where they are not Markdown."""
    lines = [[to_text(cell) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def finalize(value: Any) -> Any:
    """Escape what a template is about to write; for Jinja's `finalize`."""
    return to_text(value) if isinstance(value, str) else value


def to_html(text: str, folder: Path, pictures: Collection[str] = ()) -> str:
    """One HTML page of the Markdown `text` that loads nothing. Of the images that it links, those named in `pictures`,
    relative to `folder`, are embedded; of any other its caption alone is left."""
    from markdown_it import MarkdownIt

    def show(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        caption = escape(renderer.renderInlineAsText(tokens[index].children, options, env))
        if (link := tokens[index].attrs["src"]) not in pictures:
            return caption
        content = (folder / link).read_bytes()
        width = int.from_bytes(content[16:20], "big") * 96 // STYLE["savefig.dpi"]  # where a PNG says it; CSS inches
        embedded = base64.b64encode(content).decode()
        look = f'alt="{caption}" width="{width}" src="data:image/png;base64,{embedded}"'
        return f"<img {look}>" if width < _WIDE else f'<span class="scroll"><img class="wide" {look}></span>'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", show)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    body = parser.render(text)
    heading = re.search(r"<h1>(.*?)</h1>", body)
    title = re.sub(r"<[^>]*>", "", heading[1]) if heading else "Pulmo"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_SHEET.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _to_line(value: object) -> str:
    """Without line breaks and control characters."""
    return re.sub(r" {2,}", " ", "".join(letter if letter.isprintable() else " " for letter in str(value)))
