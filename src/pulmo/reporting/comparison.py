"""Two experiments side by side, as one figure and one page that needs no network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.base.files import write_bytes, write_json
from pulmo.base.tables import align, render
from pulmo.films.rows.labels import LABELS
from pulmo.metrics.comparison import Comparison, compare_models
from pulmo.metrics.curves import roc_curve
from pulmo.metrics.discrimination import METRIC_NAMES, measure_auroc
from pulmo.metrics.estimates import Estimate, estimate_text, probability_text, to_json
from pulmo.reporting.canvas import BLUE, DOTTED, GRAY, VERMILLION, drawing
from pulmo.reporting.figures import draw_grid
from pulmo.reporting.galleries import Films
from pulmo.reporting.markdown import to_code, to_html, to_table, to_text
from pulmo.reporting.origin import differing_params
from pulmo.reporting.plots import plot_interval, plot_roc, pretty

_LISTED = 100  # films on the page; the JSON file has all
_THUMBNAILS = 18


@dataclass(frozen=True)
class ComparisonReport:
    """Two experiments on the same films."""

    names: tuple[str, str]
    thresholds: tuple[float, float]  # on prob_pneumonia, that each model calls by
    compared: Comparison
    disagreements: list[dict[str, Any]]  # the films called differently: path, label, and by name what each calls it

    @property
    def films(self) -> str:
        """The number of films and patients, in words."""
        return f"{self.compared.films} test films of {self.compared.patients} patients"

    def to_json(self) -> Any:
        """The content of reports/comparison.json."""
        first, second = self.names
        about = {"first": first, "second": second, "thresholds": self.thresholds}
        return to_json({**about, **vars(self.compared), "disagreements": self.disagreements})


def write_comparison(
    file: Path,
    names: tuple[str, str],
    tables: tuple[pd.DataFrame, pd.DataFrame],
    thresholds: tuple[float, float],
    params: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
    images: Mapping[str, np.ndarray] | None = None,
) -> ComparisonReport:
    """Compare two paired prediction tables (`comparison.pair_predictions`), write `file` (.json) and beside it a figure
    (.png) and a page (.html), and return the report.

    With the `params` of both, the page names those that differ; of the films called differently it shows those that
    `images` holds by path (gray, uint8).
    """
    if names[0] == names[1]:
        raise UserError(f"{names[0]} cannot be compared with itself", "`pulmo experiments` lists the others")
    a, b = tables
    label, logits, called = a.label.to_numpy(), (a.logit, b.logit), (a.called.to_numpy() == 1, b.called.to_numpy() == 1)
    compared = compare_models(label, a.patient, logits, called)
    rows = compared.disagreements
    listed = [{"path": a.path[row], "label": int(label[row])} | _answers(names, tables, row, "called") for row in rows]
    report = ComparisonReport(names, thresholds, compared, listed)
    picture = file.with_suffix(".png")
    if 0 < label.sum() < len(label):
        models = [Model(name, *rest) for name, *rest in zip(_shorten(names), tables, called, thresholds, strict=True)]
        draw_comparison(picture, models, {name: compared.metrics[name].difference for name in METRIC_NAMES})
    else:
        picture.unlink(missing_ok=True)
    gaps = sorted(rows, key=lambda row: -abs(a.prob_pneumonia[row] - b.prob_pneumonia[row]))[:_LISTED]
    films = [
        [a.path[row], LABELS[label[row]], *_answers(names, tables, row, "prob_pneumonia").values()] for row in gaps
    ]
    thumbnails = file.with_name(f"{file.stem}_films.png")
    thumbnails.unlink(missing_ok=True)
    if shown := [film for film in films if film[0] in (images or {})][:_THUMBNAILS]:
        draw_disagreements(thumbnails, names, shown, images or {})
    differing = None if params is None else differing_params(*params)
    page = to_html(_page(report, films, differing, (picture, thumbnails)), file.parent, {picture.name, thumbnails.name})
    write_bytes(file.with_suffix(".html"), page.encode())
    write_json(file, report.to_json())
    return report


def draw_disagreements(
    path: Path, names: tuple[str, str], films: Sequence[Sequence[Any]], images: Mapping[str, np.ndarray]
) -> None:
    """Thumbnails of films given as (path, label, probability by the first, by the second)."""
    captions = [f"{label}\n{probability_text(one, 2)} | {probability_text(other, 2)}" for _, label, one, other in films]
    first, second = _shorten(names)
    title = f"Called differently; probability of PNEUMONIA by {first} | by {second}"
    draw_grid(path, Films([images[film[0]] for film in films], captions), title)


class Model(NamedTuple):
    """One of the two in a figure: a short name, its predictions, which films it calls PNEUMONIA, and from where on."""

    name: str
    films: pd.DataFrame
    called: np.ndarray
    threshold: float


def draw_comparison(path: Path, models: Sequence[Model], differences: Mapping[str, Estimate]) -> None:
    """Two models on the same films: ROC curves, differences of metrics (second less first), and the films."""
    curves, aurocs = {}, {}
    for name, films, *_ in models:
        curves[name] = roc_curve(films.label, films.logit, films.patient)
        aurocs[name] = measure_auroc(films.label, films.logit, films.patient)
    with drawing(path, 9.3, 9.2, rows=2, columns=2) as (roc, scatter, forest, empty):
        empty.set_axis_off()
        plot_roc(roc, curves, aurocs, {})
        plot_differences(forest, differences, f"{models[1].name}\nless {models[0].name} (95% interval)")
        plot_agreement(scatter, *models)


def plot_differences(ax: Any, differences: Mapping[str, Estimate], label: str) -> None:
    """Differences of metrics by name with their intervals, and a line at 0."""
    ax.axvline(0, color=VERMILLION, linestyle="--", linewidth=1)
    for row, estimate in enumerate(differences.values()):
        plot_interval(ax, row, estimate)
    ax.set_yticks(range(len(differences)), [pretty(name) for name in differences])
    ax.set(xlabel=label, title="Differences")
    ax.set_ylim(len(differences) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def plot_agreement(ax: Any, first: Model, second: Model) -> None:
    """The probability that each model gives to every film, and both thresholds; films called differently are ringed."""
    labels = first.films.label.to_numpy()
    x, y = first.films.prob_pneumonia.to_numpy(), second.films.prob_pneumonia.to_numpy()
    ax.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=DOTTED)
    ax.axvline(first.threshold, color=GRAY, linewidth=1, linestyle="--", label="thresholds")
    ax.axhline(second.threshold, color=GRAY, linewidth=1, linestyle="--")
    for label, name, colour, marker in ((0, "NORMAL", BLUE, "o"), (1, "PNEUMONIA", VERMILLION, "^")):
        of = labels == label
        ax.scatter(x[of], y[of], 16, colour, marker, alpha=0.6, linewidths=0, label=name)
    differ = first.called != second.called
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8}
    ax.scatter(x[differ], y[differ], 60, label=f"called differently: {differ.sum()}", **look)
    ax.set(xlabel=f"probability of PNEUMONIA, {first.name}", ylabel=f"the same, {second.name}", title="Films")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, columnspacing=1, handlelength=1.4)


def format_comparison(report: ComparisonReport, width: int = 100) -> str:
    """The report in `width` columns: both values of each metric, the paired difference, and two tests."""
    head = ["", *_shorten(report.names), "difference (95% interval)"]
    difference = f"difference = {report.names[1]} less {report.names[0]}"
    return render(
        [f"{report.films}; {difference}", "", align([head, *_rows(report)], (1, 2)), "", *_tests(report)], width
    )


def _rows(report: ComparisonReport) -> list[list[str]]:
    """A row a metric, and one of the thresholds: its name, both values, and the difference."""
    return [
        *(
            [pretty(name), _number(row.a), _number(row.b), estimate_text(row.difference)]
            for name, row in report.compared.metrics.items()
        ),
        ["threshold", *map(_number, report.thresholds), ""],
    ]


def _shorten(names: tuple[str, str], room: int = 16) -> tuple[str, str]:
    """Two names in at most `room` characters each, cut where they stay different."""
    long = [len(name) > room for name in names]
    heads = [f"{name[: room - 1]}…" if cut else name for name, cut in zip(names, long, strict=True)]
    tails = [f"…{name[1 - room :]}" if cut else name for name, cut in zip(names, long, strict=True)]
    for first, second in (heads, tails):
        if first != second:
            return first, second
    return "first", "second"


def _answers(
    names: tuple[str, str], tables: tuple[pd.DataFrame, pd.DataFrame], row: int, column: str
) -> dict[str, Any]:
    return {name: table[column][row].item() for name, table in zip(names, tables, strict=True)}


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _tests(report: ComparisonReport) -> list[str]:
    (first, second), mcnemar = report.names, report.compared.mcnemar
    right = f"only {first} right {mcnemar.only_a_right}, only {second} right {mcnemar.only_b_right}"
    lines = [
        f"McNemar: {right}, p = {mcnemar.p:.3g}",
        f"{len(report.disagreements)} films are called differently",
    ]
    if delong := report.compared.delong:
        lines.insert(0, f"DeLong: AUROC {delong.difference:+.4f}, p = {delong.p:.3g}")
    return [*lines, "the tests take every film as independent; the intervals count patients"]


def _page(
    report: ComparisonReport,
    films: list[list[Any]],
    params: Mapping[str, tuple[str, str]] | None,
    pictures: tuple[Path, Path],
) -> str:
    """The page; `params` is None where they are not known, `pictures` are the figure and the thumbnails."""
    figure, thumbnails = pictures
    first, second = report.names
    listed = [
        [to_code(path), label, probability_text(one), probability_text(other)] for path, label, one, other in films
    ]
    text = [
        f"# {to_text(second)} against {to_text(first)}",
        f"On the {report.films} that both answered. In parentheses: 95% intervals over resampled patients, the same "
        "patients for both. An interval that holds 0 leaves open which of the two is better. Whoever chooses by this "
        "page has used the test films to choose.",
        f"![ROC curves, differences, films]({figure.name})" if figure.exists() else "All films are of one class.",
        to_table(["metric", first, second, "difference"], _rows(report)),
        "\n".join(f"- {to_text(line)}" for line in _tests(report)),
        *_describe_params(first, second, params),
        "## Films called differently, the widest apart first",
        f"![The films called differently]({thumbnails.name})" if thumbnails.exists() else "",
        to_table(["film", "is", f"probability by {first}", f"by {second}"], listed),
    ]
    return "\n\n".join(text) + "\n"


def _describe_params(first: str, second: str, params: Mapping[str, tuple[str, str]] | None) -> list[str]:
    if params is None:
        return []
    rows = [[to_code(name), to_code(one), to_code(other)] for name, (one, other) in params.items()]
    return ["## Params that differ", to_table(["param", first, second], rows) if rows else "None: all are the same."]
