"""Plots of an evaluation: each draws one question into axes that it is given (`ax`, or `axes` where it needs several),
from the curves and estimates of the report. Figures are opened and saved by `canvas.drawing`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from pulmo.metrics.curves import RiskCoverage
from pulmo.metrics.estimates import Estimate, ValueInInterval, estimate_text, probability_text
from pulmo.metrics.reliability import Bin
from pulmo.reporting.canvas import BLUE, DOTTED, GRAY, LINES, VERMILLION

Curves = Mapping[str, Mapping[str, Any]]
FIFTHS = 5
Points = Mapping[str, tuple[float, float]]
Pairs = Sequence[tuple[float, float]]


class Level(NamedTuple):
    """Results under one severity of a change of the image."""

    strength: float
    auroc: Estimate
    flipped: Estimate  # share of decisions


def plot_roc(ax: Any, curves: Curves, aurocs: Mapping[str, Estimate], points: Points) -> None:
    """ROC curves by name with their bands and AUROCs, and the operating points as (specificity, sensitivity)."""
    ax.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=DOTTED)
    for name, curve, colour, style in _styled(curves):
        ax.fill_between(curve["band_fpr"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        ax.plot(curve["fpr"], curve["tpr"], style, color=colour, label=f"{name}: {estimate_text(aurocs[name])}")
    ax.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    ax.set_title("ROC")
    _mark(ax, curves, {name: (1 - at[0], at[1]) for name, at in points.items()}, "operating point")
    ax.legend(loc="lower right", title="AUROC (95% interval)")


def plot_precision_recall(
    ax: Any, curves: Curves, auprcs: Mapping[str, Estimate], prevalences: Mapping[str, float], points: Points
) -> None:
    """Precision-recall curves by name, each with what chance reaches (its prevalence) and its operating point as
    (recall, precision)."""
    for index, (name, curve, colour, style) in enumerate(_styled(curves)):
        label = f"{name}: {estimate_text(auprcs[name])}"
        ax.plot(curve["recall"], curve["precision"], style, color=colour, label=label)
        chance, right = prevalences[name], index % 2 == 0
        ax.axhline(chance, color=colour, linestyle=style, linewidth=0.8, alpha=0.7)
        text, side = f"chance, {name}: {chance:.3f}", "right" if right else "left"
        ax.text(0.98 if right else 0.01, chance + 0.01, text, ha=side, fontsize=9, color=colour)
    _mark(ax, curves, points, "operating point")
    ax.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    ax.set(aspect="equal", title="Precision and recall")
    ax.legend(loc="lower left", title="AUPRC (95% interval)")


def plot_confusion(ax: Any, counts: Mapping[str, int], title: str) -> None:
    """Confusion matrix from tp, fp, fn, tn, with the share of each row."""
    table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    names = ["NORMAL", "PNEUMONIA"]
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if share[row, column] > 0.5 else "black"
        ax.text(column, row - 0.06, f"{count:,}", ha="center", va="center", fontsize=17, color=colour)
        ax.text(column, row + 0.2, f"{share[row, column]:.1%} of row", ha="center", va="center", color=colour)
    ax.set(xticks=[0, 1], xticklabels=names, xlabel="model says", ylabel="film is", title=title)
    ax.set_yticks([0, 1], names, rotation=90, va="center")
    ax.grid(visible=False)


def plot_reliability(axes: Sequence[Any], bins: Mapping[str, Sequence[Bin]], title: str) -> None:
    """Observed share of PNEUMONIA against mean probability, with a 95% band, and how many films there are; one line per
    name (before, after the temperature) through fifths of the probability, pooled from the bins of
    `calibration.reliability_bins`. Two axes."""
    upper, lower = axes
    upper.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=DOTTED, label="perfect")
    for index, (name, rows, colour, style) in enumerate(_styled(bins)):
        fifths = pool_bins(rows)
        x, y, low, high = fifths[["probability", "observed", "low", "high"]].to_numpy(dtype=float).T
        upper.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        upper.plot(x, y, style, color=colour, marker="os"[index % 2], markersize=5, label=name)
        left = fifths.index.to_numpy() / FIFTHS + 0.02 + 0.08 * index
        hatch = {"hatch": ["", "///"][index % 2], "edgecolor": "white", "linewidth": 0.3}
        lower.bar(left, fifths.films, 0.08, align="edge", color=colour, **hatch)
    upper.set(xlim=(0, 1.005), ylim=(-0.02, 1.02), ylabel="observed share of PNEUMONIA", title=title)
    upper.legend(loc="upper left", title="with 95% bands")
    lower.set(xlabel="probability of PNEUMONIA", ylabel="films (log)", yscale="symlog")
    lower.set_ylim(bottom=0)
    lower.yaxis.set_major_formatter(ScalarFormatter())


def pool_bins(bins: Sequence[Bin]) -> pd.DataFrame:
    """Bins pooled to fifths of the probability: films, and means over films of `probability` and `observed`, the latter
    with `low` and `high`, whose distances from it are those of the bins added in squares (Zou and Donner 2008)."""
    table = pd.DataFrame(bins)
    fifth = (FIFTHS * (table.above + table.up_to) / 2).astype(int)
    share = table.films / table.films.groupby(fifth).transform("sum")
    pooled = pd.DataFrame({"films": table.films.groupby(fifth).sum()})
    for name in ("probability", "observed"):
        pooled[name] = (share * table[name]).groupby(fifth).sum()
    for name, sign in (("low", -1), ("high", 1)):
        distance = (table[name].astype(float) - table.observed).fillna(0)  # without interval where all resamples agree
        pooled[name] = pooled.observed + sign * np.sqrt(((share * distance) ** 2).groupby(fifth).sum())
    return pooled


def plot_decision_curve(ax: Any, curve: Mapping[str, Sequence[float]], threshold: float, prevalence: float) -> None:
    """Net benefit by threshold probability at the prevalence of the films, with the operating point marked."""
    ax.fill_between(curve["threshold"], curve["low"], curve["high"], color=BLUE, alpha=0.15, linewidth=0)
    ax.plot(curve["threshold"], curve["model"], color=BLUE, label="treat by the model (95% band)")
    ax.plot(curve["threshold"], curve["treat_all"], "--", color=VERMILLION, label="treat all")
    ax.axhline(0, color="black", linestyle=":", label="treat none")
    ax.axvline(threshold, color=GRAY, linewidth=1, label=f"operating point ({probability_text(threshold, 2)})")
    top = max(*curve["high"], 0.05)
    ax.set(xlim=(0, 1), ylim=(-0.12 * top, 1.05 * top), title=f"Decision curve, prevalence {prevalence:.1%}")
    ax.set(xlabel="threshold probability for treating", ylabel="net benefit")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.1))


def plot_risk_coverage(ax: Any, curves: Mapping[str, RiskCoverage], points: Points) -> None:
    """Error rate by share of films answered, and where the locked abstention band lands as (coverage, error)."""
    for name, curve, colour, style in _styled(curves):
        label = f"{name}: AURC {estimate_text(curve.aurc)}"
        ax.plot(curve.coverage, curve.risk, style, color=colour, label=label)
    _mark(ax, curves, points, "locked abstention band")
    settled = [max(curve.risk[len(curve.risk) // 20 :]) for curve in curves.values()]  # the first few jump
    ax.set(xlim=(0, 1.01), ylim=(0, max(0.02, 1.3 * max(settled))), title="Selective prediction")
    ax.set(xlabel="share of films answered, surest first", ylabel="error rate of the answers")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="upper left")


def plot_prevalence(ax: Any, curve: Mapping[str, Sequence[float]], prevalence: float) -> None:
    """PPV and NPV by prevalence, with the prevalence of the films evaluated marked."""
    x = curve["prevalence"]
    for key, (colour, style) in zip(("ppv", "npv"), LINES, strict=False):
        ax.fill_between(x, curve[f"{key}_low"], curve[f"{key}_high"], color=colour, alpha=0.15, linewidth=0)
        ax.plot(x, curve[key], style, color=colour, label=f"{key.upper()} (95% band)")
    ax.axvline(prevalence, color=GRAY, linewidth=1, label=f"these films ({prevalence:.1%})")
    ax.set(ylim=(0, 1.01), xlabel="prevalence of PNEUMONIA", ylabel="predictive value", title="Predictive values")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="lower right")


def plot_forest(
    axes: Sequence[Any],
    rows: Sequence[tuple[str, Mapping[str, Estimate]]],
    names: Sequence[str],
    references: Mapping[str, float | None],
) -> None:
    """One line per row (label, estimates by name) and one of the axes per name, with a vertical line at its reference.

    Serves subgroups (sensitivity, specificity, auroc; reference: all films) and differences of models (reference 0).
    """
    for ax, name in zip(axes, names, strict=True):
        if references[name] is not None:
            ax.axvline(references[name], color=VERMILLION, linestyle="--", linewidth=1)
        for row, (_, estimates) in enumerate(rows):
            plot_interval(ax, row, estimates[name])
        ax.set(xlabel=pretty(name), yticks=range(len(rows)), yticklabels=[pretty(label) for label, _ in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(visible=False, axis="y")


def plot_robustness(axes: Sequence[Any], changes: Mapping[str, Sequence[Level]], clean: Estimate) -> None:
    """One of the axes per change of the image: AUROC and share of flipped decisions at each of its levels; `clean` is
    the AUROC on untouched films."""
    none = ValueInInterval(0, 0, 0)
    for ax, (name, levels) in zip(axes, changes.items(), strict=False):
        x = range(len(levels) + 1)
        for key, first, colour, style in (("auroc", clean, BLUE, "-o"), ("flipped", none, VERMILLION, "--s")):
            estimates = [first, *(getattr(level, key) for level in levels)]
            ends = [(at.value, at.low, at.high) for at in estimates]
            value, low, high = np.array(ends, dtype=float).T
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(x, value, style, color=colour, markersize=3.5, linewidth=1.2 if key == "flipped" else 1.8)
        ax.set(title=name, ylim=(0, 1.03), xticks=x)
        ax.set_xticklabels(["clean", *(str(level.strength) for level in levels)], fontsize=9, rotation=45)
    for empty in axes[len(changes) :]:
        empty.set_axis_off()
    auroc, flips = "AUROC (95% band)", "share of decisions flipped (95% band)"
    handles = [
        Line2D([], [], color=BLUE, marker="o", label=auroc),
        Line2D([], [], color=VERMILLION, marker="s", linestyle="--", label=flips),
    ]
    axes[0].figure.legend(handles=handles, loc="outside lower center", ncols=2)


def plot_sweep(ax: Any, ended: Pairs, pruned: Pairs) -> None:
    """AUROC on validation of each trial of a sweep by its number, the best so far, and the trials stopped early."""
    numbers, values = (np.array(column) for column in zip(*sorted(ended), strict=True))
    ax.step(numbers, np.maximum.accumulate(values), where="post", color=BLUE, label="best so far")
    ax.plot(numbers, values, "o", color=BLUE, markersize=5, label="trial")
    if pruned:
        ax.plot(*zip(*pruned, strict=True), "x", color=VERMILLION, label="stopped early, best epoch")
    ax.set(xlabel="trial", ylabel="AUROC on validation", title="Sweep")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.legend(loc="outside lower center", ncols=3)


def _styled(curves: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, str]]:
    for (name, curve), (colour, style) in zip(curves.items(), cycle(LINES), strict=False):
        yield name, curve, colour, style


def _mark(ax: Any, curves: Mapping[str, Any], points: Points, label: str) -> None:
    for name, _, colour, _ in _styled(curves):
        if name in points:
            ax.plot(*points[name], "o", color=colour, markeredgecolor="white", markersize=8, zorder=5)
    if points:
        ax.plot([], [], "o", color="black", markersize=7, label=label)


def plot_interval(ax: Any, row: int, estimate: Estimate) -> None:
    """An estimate and its interval at height `row` of the axes, or a dash where there is none."""
    if estimate.value is None:
        ax.text(0.5, row, "–", color=GRAY, ha="center", va="center", transform=ax.get_yaxis_transform())
        return
    if estimate.low is not None:
        ax.plot([estimate.low, estimate.high], [row, row], color=BLUE, linewidth=1.6, solid_capstyle="butt")
    ax.plot(estimate.value, row, "o", color=BLUE, markersize=5.5)


def pretty(name: str) -> str:
    """A metric's name as text has it: AUROC, balanced accuracy."""
    return name.upper() if name in ("auroc", "auprc", "f1", "ppv", "npv", "mcc") else name.replace("_", " ")
