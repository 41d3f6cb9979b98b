"""Tables for a terminal, as plain text without colours or boxes, so that a pipe carries what people see."""

import io
import shutil
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none and COLUMNS does not say."""
    return shutil.get_terminal_size((100, 24)).columns


def to_text(parts: Sequence[RenderableType], width: int) -> str:
    """The text that rich draws of some parts, one below the other, in `width` columns, without spaces at line ends."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def table_row(cells: Sequence[str], widths: Sequence[int]) -> Table:
    """One row: the first cell to the left, others to the right, each in its width; the last one takes what is left,
    and folds. Rows of the same widths stand one below the other as a table, and a row may have fewer cells."""
    row = Table.grid(padding=(0, 2, 0, 0))
    for place, width in enumerate(widths[: len(cells) - 1]):
        row.add_column(width=width, no_wrap=True, justify="right" if place else "left")
    row.add_column(overflow="fold")
    row.add_row(*cells)
    return row
