"""From an evaluation report to everything that people look at: pictures, and the tables behind `dvc plots`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pulmo.base.files import write_csv
from pulmo.films.labels import LABELS, SPLITS
from pulmo.metrics.decisions import confidence
from pulmo.metrics.estimates import probability_text
from pulmo.reporting import galleries, plots

SHOWN = 18  # films in the grid of predictions


class Samples(NamedTuple):
    """Train films, and the same films augmented as in training."""

    films: pd.DataFrame  # with columns subtype and label
    plain: np.ndarray  # uint8 (N, S, S), as preprocessed
    augmented: list[np.ndarray]  # each (N, S, S), the films changed anew


def draw_all(
    report: Mapping[str, Any],
    history: pd.DataFrame,
    leakage: Mapping[str, Any],
    test: pd.DataFrame,
    samples: Samples,
    images: np.ndarray,
    folder: Path,
    seed: int,
) -> None:
    """Every picture of an evaluation, as the functions below draw them."""
    draw_report(report, history, folder)
    draw_films(test, images, report["locked"]["operating_point"]["threshold"], folder, seed)
    draw_data(leakage, folder)
    draw_samples(samples, folder)


def draw_report(report: Mapping[str, Any], history: pd.DataFrame, folder: Path) -> None:
    """Draw what `evaluation.evaluate_predictions` reports, one PNG per question, into `folder`, and the keys shortcuts
    and robustness where the report has them."""
    splits = {name: report[name] for name in ("test", "val")}
    draw_splits(splits, report["locked"]["operating_point"]["threshold"], folder)
    galleries.draw_training(folder / "training.png", {str(name): column.tolist() for name, column in history.items()})
    if shortcuts := report.get("shortcuts"):
        names = ("AUROC of the shortcut", "of the model, films matched")
        told = [row for row in shortcuts["families"] if row["test"]]
        rows = [(row["name"], dict(zip(names, (row["test"], row["matched"]["model"]), strict=True))) for row in told]
        if rows:
            model = dict.fromkeys(names, shortcuts["model"]["test"])
            plots.draw_forest(
                folder / "shortcuts.png", rows, names, "Shortcuts on test (dashed: the model on all films)", model
            )
    if robustness := report.get("robustness"):
        changes = {row["name"]: row["severities"] for row in robustness["changes"]}
        plots.draw_robustness(folder / "robustness.png", changes, robustness["clean"]["auroc"])


def draw_splits(splits: Mapping[str, Mapping[str, Any]], threshold: float, folder: Path) -> None:
    """Draw what `evaluation.report_split` reports; where a figure has room for one split, of the first."""
    name, test = next(iter(splits.items()))

    def points(x: str, y: str) -> dict[str, tuple[float, float]]:
        values = {name: tuple(part["metrics"][key]["value"] for key in (x, y)) for name, part in splits.items()}
        return {name: pair for name, pair in values.items() if None not in pair}

    def curves(kind: str) -> dict[str, Any]:
        return {name: part["curves"][kind] for name, part in splits.items() if part["curves"][kind]}

    def metric(key: str) -> dict[str, Any]:
        return {name: part["metrics"][key] for name, part in splits.items()}

    if curves("roc"):
        plots.draw_roc(folder / "roc.png", curves("roc"), metric("auroc"), points("specificity", "sensitivity"))
        plots.draw_precision_recall(
            folder / "precision_recall.png",
            curves("precision_recall"),
            metric("auprc"),
            {name: part["prevalence"] for name, part in splits.items()},
            points("sensitivity", "ppv"),
        )
    plots.draw_confusion(
        folder / "confusion.png", test["confusion"], f"{name}, threshold {probability_text(threshold)}"
    )
    bins = {when: test["calibration"][when]["bins"] for when in ("before", "after")}
    plots.draw_reliability(folder / "reliability.png", bins, f"Reliability on {name}, before and after temperature")
    plots.draw_decision_curve(folder / "decision_curve.png", test["curves"]["decision"], threshold, test["prevalence"])
    abstention = {
        name: (part["selective"]["coverage"]["value"], part["selective"]["error"]["value"])
        for name, part in splits.items()
        if part["selective"]["error"]["value"] is not None
    }
    plots.draw_risk_coverage(folder / "risk_coverage.png", curves("risk_coverage"), abstention)
    plots.draw_prevalence(folder / "prevalence.png", test["curves"]["prevalence"], test["prevalence"])
    rows = [(f"{row['name']} (n = {row['films']})", row) for row in test["subgroups"]]
    if rows:
        overall = {key: test["metrics"][key]["value"] for key in ("sensitivity", "specificity", "auroc")}
        known = {key: value for key, value in overall.items() if value is not None}
        plots.draw_forest(
            folder / "subgroups.png", rows, list(known), f"Subgroups of {name} (dashed: all films)", known
        )


def draw_films(test: pd.DataFrame, images: np.ndarray, threshold: float, folder: Path, seed: int) -> None:
    """A grid of films with what they are and what the model says, wrong answers framed.

    `test` has columns subtype, label (0 or 1) and prob_pneumonia, and the film's row of `images` in column row. Half of
    the grid shows the wrong answers that the model is surest of, as far as there are any; the rest are right answers
    drawn at random.
    """
    wrong = (test.prob_pneumonia >= threshold) != (test.label == 1)
    sure = pd.Series(confidence(test.prob_pneumonia, threshold), test.index)
    surest = sure[wrong].nlargest(SHOWN // 2).index
    rest = test[~wrong]
    drawn = rest.sample(min(SHOWN - len(surest), len(rest)), random_state=seed).index
    shown = test.loc[[*surest, *drawn]]
    films = zip(_kinds(shown), shown.prob_pneumonia, strict=True)
    captions = [f"{kind}\nprobability {probability_text(probability, 2)}" for kind, probability in films]
    pictures = [images[row] for row in shown.row]
    title = "Films, what they are and their probability of PNEUMONIA; framed: wrong answers, the surest first"
    galleries.draw_films(folder / "predictions.png", pictures, captions, wrong[shown.index].tolist(), title)


def draw_samples(samples: Samples, folder: Path) -> None:
    """Some train films as preprocessed, and then as training saw them, each time changed anew."""
    kinds = _kinds(samples.films)
    pictures, captions = list(samples.plain), list(kinds)
    for changed in samples.augmented:
        pictures += list(changed)
        captions += [f"{kind}, augmented" for kind in kinds]
    title = "Train films, and as training saw them"
    galleries.draw_films(folder / "samples.png", pictures, captions, [False] * len(pictures), title)


def _kinds(films: pd.DataFrame) -> list[str]:
    return [LABELS[1] if subtype == "unknown" else subtype for subtype in films.subtype]  # NORMAL films are all known


def draw_data(leakage: Mapping[str, Any], folder: Path) -> None:
    """Class and subtype balance of the splits."""
    counts = {name: leakage["splits"][name]["subtypes"] for name in SPLITS}
    galleries.draw_class_balance(folder / "class_balance.png", counts)


def write_plot_tables(
    report: Mapping[str, Any], predictions: pd.DataFrame, leakage: Mapping[str, Any], folder: Path
) -> None:
    """The tables that dvc.yaml plots and compares between experiments: ROC and precision-recall of val and test, the
    confusion matrix of test as one row per film, and films by split and class."""
    for split in ("val", "test"):
        for kind, columns in (("roc", ["fpr", "tpr"]), ("precision_recall", ["recall", "precision"])):
            curve = report[split]["curves"][kind] or {key: [] for key in columns}
            write_csv(folder / f"{kind}_{split}.csv", pd.DataFrame({key: curve[key] for key in columns}))
    test = predictions[predictions.split == "test"]
    called = (test.prob_pneumonia >= report["locked"]["operating_point"]["threshold"]).astype(int)
    names = np.array(LABELS)
    write_csv(folder / "confusion_test.csv", pd.DataFrame({"actual": names[test.label], "predicted": names[called]}))
    balance = [
        (f"{split} {label}", films) for split in SPLITS for label, films in leakage["splits"][split]["labels"].items()
    ]
    write_csv(folder / "class_balance.csv", pd.DataFrame(balance, columns=["class", "films"]))
