"""The one place that opens figures and saves them, in one style: Okabe-Ito colours, told apart by line style and marker
too, so that they survive colour-blind eyes and gray print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pulmo.base.files import whole_file

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GRAY = "#E69F00", "#56B4E9", "#7F7F7F"
LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))
DOTTED = (0, (1, 2))
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 2.4,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a name may hold $
    "svg.hashsalt": "pulmo",
}


@contextmanager
def drawing(path: Path, width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> Iterator[Any]:
    """Yield a flat array of the axes of a new figure, and write it to `path` when the drawing is done."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False, **settings).ravel()
        kind = path.suffix.removeprefix(".")
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
