"""Plots of what goes in and what happens inside: class balance, training, grids of films and of heat maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulmo.reporting.canvas import GRAY, LINES, ORANGE, SKY, VERMILLION

_SUBTYPES = {"normal": (SKY, ""), "bacterial": (VERMILLION, "//"), "viral": (ORANGE, ".."), "unknown": (GRAY, "xx")}


@dataclass(frozen=True)
class Films:
    """Gray films (height, width), uint8, with a caption each; framed ones (wrong answers) stand out."""

    images: Sequence[NDArray[Any]]
    captions: Sequence[str]
    framed: Sequence[bool] = ()


@dataclass(frozen=True)
class HeatMaps:
    """Gray films (height, width), uint8, heat maps of equal shape with values from 0 to 1, and captions."""

    images: Sequence[NDArray[Any]]
    heats: Sequence[NDArray[Any]]
    captions: Sequence[str]


def plot_class_balance(ax: Any, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Stacked bars of films by split, then subtype (normal, bacterial, viral, unknown)."""
    splits, total = list(counts), [sum(films.values()) for films in counts.values()]
    left = np.zeros(len(splits))
    for subtype, (colour, hatch) in _SUBTYPES.items():
        films = np.array([counts[split].get(subtype, 0) for split in splits])
        label = "PNEUMONIA, type unknown" if subtype == "unknown" else subtype
        if films.any():
            ax.barh(splits, films, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        left += films
    for row, count in enumerate(total):
        ax.text(count + 0.01 * max(total), row, f"{count:,}", va="center")
    ax.set(xlabel="films", title="Class balance", xlim=(0, 1.14 * max(total)))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.figure.legend(loc="outside lower center", ncols=4)


def plot_training(axes: Sequence[Any], history: Mapping[str, Sequence[float]]) -> None:
    """Loss, AUROC and learning rate by epoch, in three axes, from the columns of reports/history.csv (epoch, lr,
    val_auroc, train_loss, …; others may be missing). The epoch that training kept is marked: of equal AUROCs that with
    the lower val_loss."""
    epoch, auroc = list(history["epoch"]), np.nan_to_num(np.asarray(history["val_auroc"], dtype=float))
    best = int(np.lexsort((history.get("val_loss", auroc), -auroc))[0])
    val, train, rate = LINES[0], LINES[1], LINES[2]
    drawn = {
        "loss": [("train_loss", "train", train), ("val_loss", "val", val)],
        f"AUROC (best val {auroc[best]:.4f})": [("train_auroc", "train", train), ("val_auroc", "val", val)],
        "learning rate": [("lr", "", rate)],
    }
    for ax, (title, series) in zip(axes, drawn.items(), strict=True):
        for column, label, (colour, style) in series:
            if column in history:
                ax.plot(epoch, history[column], style, marker="o", markersize=3.5, color=colour, label=label)
        ax.axvline(epoch[best], color=GRAY, linestyle=":", linewidth=1.3, label=f"best epoch ({epoch[best]})")
        ax.set(xlabel="epoch", title=title)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    axes[2].ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))


def plot_films(axes: Sequence[Any], films: Films) -> None:
    """A film in each of the axes, with its caption under it; axes that are left over stay empty."""
    for ax, image, caption in zip(axes, films.images, films.captions, strict=False):
        _plot_film(ax, image, caption)
    for ax, frame in zip(axes, films.framed, strict=False):
        ax.spines[:].set(visible=frame, color=VERMILLION, linewidth=3.5)
    for empty in axes[len(films.images) :]:
        empty.set_axis_off()


def plot_heat_maps(axes: Sequence[Any], maps: HeatMaps) -> None:
    """Two of the axes for each film: the film, and the film under its heat map."""
    for left, right, image, heat, caption in zip(
        axes[::2], axes[1::2], maps.images, maps.heats, maps.captions, strict=False
    ):
        _plot_film(left, image, caption)
        _plot_film(right, image, "")
        right.imshow(heat, cmap="inferno", alpha=0.65 * np.asarray(heat), vmin=0, vmax=1)
    for empty in axes[2 * len(maps.images) :]:
        empty.set_axis_off()


def _plot_film(ax: Any, image: NDArray[Any], caption: str) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(caption, fontsize=9, loc="left")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
