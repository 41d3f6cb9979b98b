"""Tables for a terminal, as plain text without colours or boxes, so that a pipe carries what people see."""

import io
import shutil
from collections.abc import Collection, Sequence

from rich.console import Console, RenderableType
from rich.table import Table


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none and COLUMNS does not say."""
    return shutil.get_terminal_size((100, 24)).columns


def render(parts: Sequence[RenderableType], width: int) -> str:
    """The text that rich draws of some parts, one below the other, in `width` columns, without spaces at line ends."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def align(rows: Sequence[Sequence[str]], right: Collection[int] = (), widths: Sequence[int] = ()) -> Table:
    """Rows of as many cells each, in columns of these widths, or else as wide as their longest cell. The columns whose
    numbers are in `right` are flush right; the last one takes what is left, and folds."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for place in range(len(rows[0]) - 1):
        width = widths[place] if widths else None
        grid.add_column(width=width, no_wrap=True, justify="right" if place in right else "left")
    grid.add_column(overflow="fold")
    for cells in rows:
        grid.add_row(*cells)
    return grid
