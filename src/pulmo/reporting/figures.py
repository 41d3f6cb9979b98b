"""From an evaluation report to everything that people look at: pictures, and the tables behind `dvc plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pulmo.base.files import write_csv
from pulmo.films.rows.labels import LABELS, SPLITS
from pulmo.metrics.estimates import Estimate, probability_text
from pulmo.metrics.locked import Locked
from pulmo.reporting import galleries, plots
from pulmo.reporting.canvas import drawing
from pulmo.reporting.galleries import Films, HeatMaps
from pulmo.reporting.report import Report, SplitReport

SHOWN = 18  # films in the grid of predictions
Splits = Mapping[str, SplitReport]


class Samples(NamedTuple):
    """Train films, and the same films augmented as in training."""

    films: pd.DataFrame  # with columns subtype and label
    plain: np.ndarray  # uint8 (N, S, S), as preprocessed
    augmented: list[np.ndarray]  # each (N, S, S), the films changed anew


def draw_report(report: Report, folder: Path) -> None:
    """Draw the report into `folder`, one PNG per question, and what the probes found."""
    draw_splits({"test": report.test, "val": report.val}, report.locked.threshold, folder)
    for finding in report.findings.values():
        finding.draw(folder)


def draw_splits(splits: Splits, threshold: float, folder: Path) -> None:
    """Draw what is reported of sets of films; where a figure has room for one set, of the first."""
    name, first = next(iter(splits.items()))
    _draw_discrimination(splits, folder)
    with drawing(folder / "confusion.png", 4.5, 4.3) as (ax,):
        plots.plot_confusion(ax, first.confusion, f"{name}, threshold {probability_text(threshold)}")
    bins = {"before": first.calibration.before.bins, "after": first.calibration.after.bins}
    with drawing(folder / "reliability.png", 4.6, 5.4, rows=2, sharex=True, height_ratios=[3, 1]) as axes:
        plots.plot_reliability(axes, bins, f"Reliability on {name}")
    with drawing(folder / "decision_curve.png", 4.6, 4.2) as (ax,):
        plots.plot_decision_curve(ax, first.curves.decision, threshold, first.prevalence)
    with drawing(folder / "risk_coverage.png", 4.6, 4.2) as (ax,):
        curves = {name: part.curves.risk_coverage for name, part in splits.items()}
        plots.plot_risk_coverage(ax, curves, _points(splits, "selective", "coverage", "error"))
    with drawing(folder / "prevalence.png", 4.6, 4.2) as (ax,):
        plots.plot_prevalence(ax, first.curves.prevalence, first.prevalence)
    if rows := [(f"{row.name} (n = {row.films})", vars(row)) for row in first.subgroups]:
        overall = {key: first.metrics[key].value for key in ("sensitivity", "specificity", "auroc")}
        known = {key: value for key, value in overall.items() if value is not None}
        draw_forest(folder / "subgroups.png", rows, known, f"Subgroups of {name} (dashed: all films)")


def _draw_discrimination(splits: Splits, folder: Path) -> None:
    roc = {name: part.curves.roc for name, part in splits.items() if part.curves.roc}
    recall = {name: part.curves.precision_recall for name, part in splits.items() if part.curves.precision_recall}
    if not roc:
        return
    with drawing(folder / "roc.png", 4.6, 4.7) as (ax,):
        aurocs = {name: part.metrics["auroc"] for name, part in splits.items()}
        plots.plot_roc(ax, roc, aurocs, _points(splits, "metrics", "specificity", "sensitivity"))
    with drawing(folder / "precision_recall.png", 4.6, 4.7) as (ax,):
        auprcs = {name: part.metrics["auprc"] for name, part in splits.items()}
        chance = {name: part.prevalence for name, part in splits.items()}
        plots.plot_precision_recall(ax, recall, auprcs, chance, _points(splits, "metrics", "sensitivity", "ppv"))


def _points(splits: Splits, group: str, x: str, y: str) -> dict[str, tuple[float, float]]:
    """A pair of estimates of each set as a point, where both are defined."""
    points = {}
    for name, part in splits.items():
        estimates = getattr(part, group)
        if (pair := (estimates[x].value, estimates[y].value)) and None not in pair:
            points[name] = pair
    return points


def draw_forest(
    path: Path,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    references: Mapping[str, float | None],
    title: str,
) -> None:
    """A row per subgroup (label, estimates by name), a panel per name of `references`, where a dashed line stands."""
    width, height = 2.3 + 2.3 * len(references), 1.3 + 0.34 * len(rows)
    with drawing(path, width, height, columns=len(references), sharey=True) as axes:
        plots.plot_forest(axes, rows, list(references), references)
        axes[0].figure.suptitle(title)


def draw_robustness(path: Path, changes: Mapping[str, Sequence[plots.Level]], clean: Estimate) -> None:
    """A panel per change of the image, four in a row."""
    columns = min(4, len(changes))
    rows = -(-len(changes) // columns)
    with drawing(path, 2.3 * columns, 2.2 * rows + 0.5, rows, columns, sharey=True) as axes:
        plots.plot_robustness(axes, changes, clean)


def draw_training(history: pd.DataFrame, folder: Path) -> None:
    """Loss, AUROC and learning rate by epoch, from reports/history.csv."""
    with drawing(folder / "training.png", 8.4, 3.5, columns=3) as axes:
        galleries.plot_training(axes, {str(name): column.tolist() for name, column in history.items()})


def draw_predictions(films: pd.DataFrame, images: np.ndarray, locked: Locked, folder: Path, seed: int) -> None:
    """A grid of films with what they are and what the model says, wrong answers framed, and one of missed PNEUMONIA.

    `films` has columns subtype, label (0 or 1) and prob_pneumonia, and the film's row of `images` in column row. Half
    of the grid shows the wrong answers that the model is surest of, as far as there are any; the rest are right answers
    drawn at random.
    """
    wrong = pd.Series(locked.call(films.prob_pneumonia) != (films.label == 1).to_numpy(), films.index)
    sure = pd.Series(locked.confidence(films.prob_pneumonia), films.index)
    surest = sure[wrong].nlargest(SHOWN // 2).index
    rest = films[~wrong]
    drawn = rest.sample(min(SHOWN - len(surest), len(rest)), random_state=seed).index
    shown = films.loc[[*surest, *drawn]]
    grid = Films([images[row] for row in shown.row], _captions(shown), wrong[shown.index].tolist())
    title = "Films, what they are and their probability of PNEUMONIA; framed: wrong answers, the surest first"
    draw_grid(folder / "predictions.png", grid, title)
    missed = films[wrong & (films.label == 1)]
    draw_missed(missed.loc[sure[missed.index].nlargest(SHOWN).index], images, folder)


def draw_missed(films: pd.DataFrame, images: np.ndarray, folder: Path) -> None:
    """missed.png: these PNEUMONIA films that the model calls NORMAL; no picture where there is none."""
    if len(films):
        grid = Films([images[row] for row in films.row], _captions(films))
        draw_grid(folder / "missed.png", grid, "Missed PNEUMONIA, the surest first, with its probability")


def _captions(films: pd.DataFrame) -> list[str]:
    return [
        f"{kind}\nprobability {probability_text(probability, 2)}"
        for kind, probability in zip(_kinds(films), films.prob_pneumonia, strict=True)
    ]


def draw_samples(samples: Samples, folder: Path) -> None:
    """Some train films as preprocessed, and then as training saw them, each time changed anew."""
    kinds = _kinds(samples.films)
    pictures, captions = list(samples.plain), list(kinds)
    for changed in samples.augmented:
        pictures += list(changed)
        captions += [f"{kind}, augmented" for kind in kinds]
    draw_grid(folder / "samples.png", Films(pictures, captions), "Train films, and as training saw them")


def _kinds(films: pd.DataFrame) -> list[str]:
    return [LABELS[1] if subtype == "unknown" else subtype for subtype in films.subtype]  # NORMAL films are all known


def draw_grid(path: Path, films: Films, title: str, columns: int = 6) -> None:
    """Films in rows of `columns`."""
    columns = max(1, min(columns, len(films.images)))
    rows = max(1, -(-len(films.images) // columns))
    with drawing(path, 1.55 * columns, 2.05 * rows + 0.35, rows, columns) as axes:
        galleries.plot_films(axes, films)
        axes[0].figure.suptitle(title)


def draw_heat_maps(path: Path, maps: HeatMaps, title: str, columns: int = 3) -> None:
    """Films beside the same under their heat maps, `columns` pairs in a row."""
    columns = max(1, min(columns, len(maps.images)))
    rows = max(1, -(-len(maps.images) // columns))
    with drawing(path, 3.1 * columns, 2.05 * rows + 0.35, rows, 2 * columns) as axes:
        galleries.plot_heat_maps(axes, maps)
        axes[0].figure.suptitle(title)


def draw_data(leakage: Mapping[str, Any], folder: Path) -> None:
    """Class and subtype balance of the splits."""
    counts = {name: leakage["splits"][name]["subtypes"] for name in SPLITS}
    with drawing(folder / "class_balance.png", 5.4, 1.5 + 0.55 * len(counts)) as (ax,):
        galleries.plot_class_balance(ax, counts)


def draw_sweep(path: Path, ended: plots.Pairs, pruned: plots.Pairs) -> None:
    """AUROC by trial, from pairs of its number and its AUROC."""
    with drawing(path, 6.4, 3.6) as (ax,):
        plots.plot_sweep(ax, ended, pruned)


def write_plot_tables(report: Report, films: pd.DataFrame, leakage: Mapping[str, Any], folder: Path) -> None:
    """The tables that dvc.yaml plots and compares between experiments: ROC and precision-recall of val and test, the
    confusion matrix of test as one row per film, and films by split and class."""
    for split, part in (("val", report.val), ("test", report.test)):
        roc = part.curves.roc or {"fpr": [], "tpr": []}
        write_csv(folder / f"roc_{split}.csv", pd.DataFrame({key: roc[key] for key in ("fpr", "tpr")}))
        recall = part.curves.precision_recall or {"recall": [], "precision": []}
        table = pd.DataFrame({key: recall[key] for key in ("recall", "precision")})
        write_csv(folder / f"precision_recall_{split}.csv", table)
    test, names = films[films.split == "test"], np.array(LABELS)
    called = report.locked.call(test.prob_pneumonia).astype(int)
    write_csv(folder / "confusion_test.csv", pd.DataFrame({"actual": names[test.label], "predicted": names[called]}))
    balance = [
        (f"{split} {label}", films) for split in SPLITS for label, films in leakage["splits"][split]["labels"].items()
    ]
    write_csv(folder / "class_balance.csv", pd.DataFrame(balance, columns=["class", "films"]))
