"""Figures of what goes in and what happens inside: class balance, training, films, heat maps; styled by `plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmo.reporting.plots import GRAY, LINES, ORANGE, SKY, VERMILLION, drawing

_SUBTYPES = {"normal": (SKY, ""), "bacterial": (VERMILLION, "//"), "viral": (ORANGE, ".."), "unknown": (GRAY, "xx")}


def draw_class_balance(path: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Stacked bars of films by split, then subtype (normal, bacterial, viral, unknown)."""
    splits, total = list(counts), [sum(films.values()) for films in counts.values()]
    with drawing(path, 5.4, 1.5 + 0.55 * len(splits)) as (axes,):
        left = np.zeros(len(splits))
        for subtype, (colour, hatch) in _SUBTYPES.items():
            films = np.array([counts[split].get(subtype, 0) for split in splits])
            label = "PNEUMONIA, type unknown" if subtype == "unknown" else subtype
            if films.any():
                axes.barh(splits, films, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
            left += films
        for row, count in enumerate(total):
            axes.text(count + 0.01 * max(total), row, f"{count:,}", va="center")
        axes.set(xlabel="films", title="Class balance", xlim=(0, 1.14 * max(total)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.figure.legend(loc="outside lower center", ncols=4)


def draw_training(path: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Loss, AUROC and learning rate by epoch from the columns of reports/history.csv (epoch, lr, val_auroc, train_loss,
    …; others may be missing); the epoch that training kept is marked: of equal AUROCs that with the lower val_loss."""
    epoch, auroc = list(history["epoch"]), np.nan_to_num(np.asarray(history["val_auroc"], dtype=float))
    best = int(np.lexsort((history.get("val_loss", auroc), -auroc))[0])
    val, train, rate = LINES[0], LINES[1], LINES[2]
    panels_of = {
        "loss": [("train_loss", "train", train), ("val_loss", "val", val)],
        f"AUROC (best val {auroc[best]:.4f})": [("train_auroc", "train", train), ("val_auroc", "val", val)],
        "learning rate": [("lr", "", rate)],
    }
    with drawing(path, 8.4, 3.5, columns=3) as panels:
        for panel, (title, series) in zip(panels, panels_of.items(), strict=True):
            for column, label, (colour, style) in series:
                if column in history:
                    panel.plot(epoch, history[column], style, marker="o", markersize=3.5, color=colour, label=label)
            panel.axvline(epoch[best], color=GRAY, linestyle=":", linewidth=1.3, label=f"best epoch ({epoch[best]})")
            panel.set(xlabel="epoch", title=title)
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0].legend()
        panels[2].ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))


def draw_films(
    path: Path,
    images: Sequence[NDArray[Any]],
    captions: Sequence[str],
    framed: Sequence[bool] = (),
    title: str = "",
    columns: int = 6,
) -> None:
    """Grid of gray images (height, width), uint8, with a caption under each; framed ones (wrong answers) stand out."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    with drawing(path, 1.75 * columns, 2.15 * rows + 0.35 * bool(title), rows, columns) as panels:
        for panel, image, caption in zip(panels, images, captions, strict=False):
            _film(panel, image, caption)
        for panel, frame in zip(panels, framed, strict=False):
            panel.spines[:].set(visible=frame, color=VERMILLION, linewidth=3.5)
        _finish(panels, len(images), title)


def draw_heat_maps(
    path: Path,
    images: Sequence[NDArray[Any]],
    heats: Sequence[NDArray[Any]],
    captions: Sequence[str],
    title: str = "",
    columns: int = 3,
) -> None:
    """Pairs of a gray image (height, width), uint8, and the same under its heat map of equal shape, values 0 to 1."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    with drawing(path, 3.4 * columns, 2.1 * rows + 0.35 * bool(title), rows, 2 * columns) as panels:
        for left, right, image, heat, caption in zip(panels[::2], panels[1::2], images, heats, captions, strict=False):
            _film(left, image, caption)
            _film(right, image, "")
            right.imshow(heat, cmap="inferno", alpha=0.65 * np.asarray(heat), vmin=0, vmax=1)
        _finish(panels, 2 * len(images), title)


def _film(panel: Any, image: NDArray[Any], caption: str) -> None:
    panel.imshow(image, cmap="gray", vmin=0, vmax=255)
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(caption, fontsize=8.5, loc="left")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)


def _finish(panels: Any, used: int, title: str) -> None:
    for empty in panels[used:]:
        empty.set_axis_off()
    if title:
        panels[0].figure.suptitle(title)
