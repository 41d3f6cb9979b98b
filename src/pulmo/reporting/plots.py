"""Figures of an evaluation, in one style: Okabe-Ito colours, told apart by line style and marker too, so that they
survive colour-blind eyes and gray print.

Each function draws one figure to `path` (.png or .svg), from the curves and estimates of `pulmo.evaluation`'s report.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from pulmo.base.files import whole_file
from pulmo.metrics.estimates import Estimate, estimate_text, probability_text

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GRAY = "#E69F00", "#56B4E9", "#7F7F7F"
LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"))
DOTTED = (0, (1, 2))
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
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
    "legend.fontsize": 9,
    "legend.handlelength": 2.4,
    "savefig.dpi": 150,
    "svg.hashsalt": "pulmo",
}
Curves = Mapping[str, Mapping[str, Any]]
Points = Mapping[str, tuple[float, float]]
Pairs = Sequence[tuple[float, float]]


@contextmanager
def drawing(path: Path, width: float, height: float, rows: int = 1, columns: int = 1, **settings: Any) -> Iterator[Any]:
    """Yield a flat array of the axes of a new figure, and write it to `path` when the drawing is done."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False, **settings).ravel()
        kind = path.suffix.removeprefix(".")
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})


def draw_roc(path: Path, curves: Curves, aurocs: Mapping[str, Estimate], points: Points) -> None:
    """ROC curves by name with their bands, and the operating point of each as (specificity, sensitivity)."""
    with drawing(path, 5.2, 5.2) as (axes,):
        plot_roc(axes, curves, aurocs)
        _mark(axes, curves, {name: (1 - at[0], at[1]) for name, at in points.items()}, "operating point")
        axes.legend(loc="lower right", title="AUROC (95% interval)")


def draw_precision_recall(
    path: Path, curves: Curves, auprcs: Mapping[str, Estimate], prevalences: Mapping[str, float], points: Points
) -> None:
    """Precision-recall curves by name, each with what chance reaches (its prevalence) and its operating point as
    (recall, precision)."""
    with drawing(path, 5.2, 5.2) as (axes,):
        for index, (name, curve, colour, style) in enumerate(_styled(curves)):
            label = f"{name}: {estimate_text(auprcs[name])}"
            axes.plot(curve["recall"], curve["precision"], style, color=colour, label=label)
            chance, right = prevalences[name], index % 2 == 0
            axes.axhline(chance, color=colour, linestyle=style, linewidth=0.8, alpha=0.7)
            text, side = f"chance, {name}: {chance:.3f}", "right" if right else "left"
            axes.text(0.98 if right else 0.01, chance + 0.01, text, ha=side, fontsize=8, color=colour)
        _mark(axes, curves, points, "operating point")
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall (sensitivity)", ylabel="precision (PPV)")
        axes.set(aspect="equal", title="Precision and recall")
        axes.legend(loc="lower left", title="AUPRC (95% interval)")


def draw_confusion(path: Path, counts: Mapping[str, int], title: str) -> None:
    """Confusion matrix from tp, fp, fn, tn, with the share of each row."""
    table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = ["NORMAL", "PNEUMONIA"]
    with drawing(path, 4.4, 4.2) as (axes,):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row - 0.06, f"{count:,}", ha="center", va="center", fontsize=17, color=colour)
            axes.text(column, row + 0.2, f"{share[row, column]:.1%} of row", ha="center", va="center", color=colour)
        axes.set(xticks=[0, 1], xticklabels=names, xlabel="model says", ylabel="film is", title=title)
        axes.set_yticks([0, 1], names, rotation=90, va="center")
        axes.grid(visible=False)


def draw_reliability(path: Path, bins: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Observed share of PNEUMONIA against mean probability with 95% intervals, and how many films each bin holds;
    one line per name (before, after the temperature), bins as in `calibration.reliability_bins`."""
    keys = ("probability", "observed", "low", "high")
    with drawing(path, 5.2, 6.0, rows=2, sharex=True, height_ratios=[3, 1]) as (upper, lower):
        upper.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=DOTTED, label="perfect")
        for index, (name, rows, colour, style) in enumerate(_styled(bins)):
            x, y, low, high = (np.array([row[key] for row in rows], dtype=float) for key in keys)
            look = {"color": colour, "linestyle": style, "marker": "os"[index % 2], "markersize": 5, "linewidth": 1.3}
            upper.errorbar(x, y, np.clip([y - low, high - y], 0, None), elinewidth=1, capsize=2, label=name, **look)
            width = (rows[0]["to"] - rows[0]["from"]) / (len(bins) + 0.5)
            left = [row["from"] + width * index for row in rows]
            look = {"color": colour, "hatch": ["", "///"][index % 2], "edgecolor": "white", "linewidth": 0.3}
            lower.bar(left, [row["films"] for row in rows], width, align="edge", **look)
        upper.set(xlim=(0, 1.005), ylim=(-0.02, 1.02), ylabel="observed share of PNEUMONIA", title=title)
        upper.legend(loc="upper left")
        lower.set(xlabel="probability of PNEUMONIA", ylabel="films (log)", yscale="symlog")
        lower.set_ylim(bottom=0)
        lower.yaxis.set_major_formatter(ScalarFormatter())


def draw_decision_curve(path: Path, curve: Mapping[str, Sequence[float]], threshold: float, prevalence: float) -> None:
    """Net benefit by threshold probability at the prevalence of the films, with the operating point marked."""
    with drawing(path, 5.4, 4.6) as (axes,):
        axes.fill_between(curve["threshold"], curve["low"], curve["high"], color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(curve["threshold"], curve["model"], color=BLUE, label="treat by the model (95% band)")
        axes.plot(curve["threshold"], curve["treat_all"], "--", color=VERMILLION, label="treat all")
        axes.axhline(0, color="black", linestyle=":", label="treat none")
        axes.axvline(threshold, color=GRAY, linewidth=1, label=f"operating point ({probability_text(threshold, 2)})")
        top = max(*curve["high"], 0.05)
        axes.set(xlim=(0, 1), ylim=(-0.12 * top, 1.05 * top), title=f"Decision curve, prevalence {prevalence:.1%}")
        axes.set(xlabel="threshold probability for treating", ylabel="net benefit")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 0.1))


def draw_risk_coverage(path: Path, curves: Curves, points: Points) -> None:
    """Error rate by share of films answered, and where the locked abstention band lands as (coverage, error)."""
    with drawing(path, 5.4, 4.6) as (axes,):
        for name, curve, colour, style in _styled(curves):
            label = f"{name}: AURC {estimate_text(curve['aurc'])}"
            axes.plot(curve["coverage"], curve["risk"], style, color=colour, label=label)
        _mark(axes, curves, points, "locked abstention band")
        settled = [max(curve["risk"][len(curve["risk"]) // 20 :]) for curve in curves.values()]  # the first few jump
        axes.set(xlim=(0, 1.01), ylim=(0, max(0.02, 1.3 * max(settled))), title="Selective prediction")
        axes.set(xlabel="share of films answered, surest first", ylabel="error rate of the answers")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="upper left")


def draw_prevalence(path: Path, curve: Mapping[str, Sequence[float]], prevalence: float) -> None:
    """PPV and NPV by prevalence, with the prevalence of the films evaluated marked."""
    with drawing(path, 5.4, 4.6) as (axes,):
        x = curve["prevalence"]
        for key, (colour, style) in zip(("ppv", "npv"), LINES, strict=False):
            axes.fill_between(x, curve[f"{key}_low"], curve[f"{key}_high"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, curve[key], style, color=colour, label=f"{key.upper()} (95% band)")
        axes.axvline(prevalence, color=GRAY, linewidth=1, label=f"these films ({prevalence:.1%})")
        axes.set(ylim=(0, 1.01), xlabel="prevalence of PNEUMONIA", ylabel="predictive value", title="Predictive values")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower right")


def draw_forest(
    path: Path,
    rows: Sequence[tuple[str, Mapping[str, Estimate]]],
    names: Sequence[str],
    title: str,
    references: Mapping[str, float | None],
) -> None:
    """One line per row (label, estimates by name) and one panel per name, with a vertical line at its reference.

    Serves subgroups (sensitivity, specificity, auroc; reference: all films) and differences of models (reference 0).
    """
    with drawing(path, 2.4 + 2.6 * len(names), 1.3 + 0.34 * len(rows), columns=len(names), sharey=True) as panels:
        for panel, name in zip(panels, names, strict=True):
            if references[name] is not None:
                panel.axvline(references[name], color=VERMILLION, linestyle="--", linewidth=1)
            for row, (_, estimates) in enumerate(rows):
                plot_interval(panel, row, estimates[name])
            panel.set(xlabel=pretty(name), yticks=range(len(rows)), yticklabels=[pretty(label) for label, _ in rows])
            panel.set_ylim(len(rows) - 0.4, -0.6)
            panel.xaxis.set_major_locator(MaxNLocator(5))
            panel.grid(visible=False, axis="y")
        panels[0].figure.suptitle(title)


def draw_robustness(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]], clean: Estimate) -> None:
    """A panel per perturbation: AUROC and share of flipped decisions (estimates) at each of its severities, which are
    {level: a short text or number, auroc, flipped}; `clean` is the AUROC on untouched films."""
    none = {"value": 0, "low": 0, "high": 0}
    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    with drawing(path, 2.5 * columns + 0.4, 2.3 * rows + 0.5, rows, columns, sharey=True) as panels:
        for panel, (name, levels) in zip(panels, curves.items(), strict=False):
            x = range(len(levels) + 1)
            for key, first, colour, style in (("auroc", clean, BLUE, "-o"), ("flipped", none, VERMILLION, "--s")):
                estimates = [first, *(level[key] for level in levels)]
                value, low, high = (np.array([e[end] for e in estimates], dtype=float) for end in none)
                panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
                panel.plot(x, value, style, color=colour, markersize=3.5, linewidth=1.2 if key == "flipped" else 1.8)
            panel.set(title=name, ylim=(0, 1.03), xticks=x)
            panel.set_xticklabels(["clean", *(str(level["level"]) for level in levels)], fontsize=7.5, rotation=45)
        for empty in panels[len(curves) :]:
            empty.set_axis_off()
        auroc = Line2D([], [], color=BLUE, marker="o", label="AUROC (95% band)")
        flips = Line2D(
            [], [], color=VERMILLION, marker="s", linestyle="--", label="share of decisions flipped (95% band)"
        )
        panels[0].figure.legend(handles=[auroc, flips], loc="outside lower center", ncols=2)


def plot_roc(axes: Any, curves: Curves, aurocs: Mapping[str, Estimate]) -> None:
    """ROC curves by name with their bands, each labelled with its AUROC."""
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=DOTTED)
    for name, curve, colour, style in _styled(curves):
        axes.fill_between(curve["band_fpr"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve["fpr"], curve["tpr"], style, color=colour, label=f"{name}: {estimate_text(aurocs[name])}")
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    axes.set_title("ROC")


def draw_sweep(path: Path, ended: Pairs, pruned: Pairs) -> None:
    """AUROC on validation of each trial of a sweep by its number, the best so far, and the trials stopped early."""
    with drawing(path, 6.4, 3.6) as (axes,):
        numbers, values = (np.array(column) for column in zip(*sorted(ended), strict=True))
        axes.step(numbers, np.maximum.accumulate(values), where="post", color=BLUE, label="best so far")
        axes.plot(numbers, values, "o", color=BLUE, markersize=5, label="trial")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), "x", color=VERMILLION, label="stopped early, best epoch")
        axes.set(xlabel="trial", ylabel="AUROC on validation", title="Sweep")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=3)


def _styled(curves: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, str]]:
    for (name, curve), (colour, style) in zip(curves.items(), cycle(LINES), strict=False):
        yield name, curve, colour, style


def _mark(axes: Any, curves: Mapping[str, Any], points: Points, label: str) -> None:
    for name, _, colour, _ in _styled(curves):
        if name in points:
            axes.plot(*points[name], "o", color=colour, markeredgecolor="white", markersize=8, zorder=5)
    if points:
        axes.plot([], [], "o", color="black", markersize=7, label=label)


def plot_interval(panel: Any, row: int, estimate: Estimate) -> None:
    """An estimate and its interval at height `row` of a panel, or a dash where there is none."""
    if estimate["value"] is None:
        panel.text(0.5, row, "–", color=GRAY, ha="center", va="center", transform=panel.get_yaxis_transform())
        return
    if estimate["low"] is not None:
        panel.plot([estimate["low"], estimate["high"]], [row, row], color=BLUE, linewidth=1.6, solid_capstyle="butt")
    panel.plot(estimate["value"], row, "o", color=BLUE, markersize=5.5)


def pretty(name: str) -> str:
    """A metric's name as text has it: AUROC, balanced accuracy."""
    return name.upper() if name in ("auroc", "auprc", "f1", "ppv", "npv", "mcc") else name.replace("_", " ")
