"""The whole evaluation, from a table of log-odds to one report that holds every number, curve and interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.evaluation.columns import column_masks
from pulmo.films.names import read_name
from pulmo.films.rows.labels import SPLITS
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.calibration import evaluate_calibration
from pulmo.metrics.curves import decision_curve, precision_recall_curve, prevalence_curve, risk_coverage, roc_curve
from pulmo.metrics.decisions import evaluate_abstention
from pulmo.metrics.discrimination import discriminate
from pulmo.metrics.estimates import estimate_difference, to_json
from pulmo.metrics.locked import Locked, LockingRules, lock
from pulmo.metrics.ranking import Flags
from pulmo.metrics.subgroups import evaluate_subgroups
from pulmo.package.info import PackageInfo
from pulmo.reporting.report import Curves, Report, SplitReport

COLUMNS = ("path", "split", "patient", "label", "subtype", "logit")
PREDICTED = ["path", "split", "patient", "label", "subtype", "logit", "prob_pneumonia", "called"]  # predictions.csv
HEADLINE = ("auroc", "accuracy", "sensitivity", "specificity", "f1")


def evaluate_predictions(
    predictions: pd.DataFrame, rendered: pd.DataFrame | None, rules: LockingRules, resampling: Resampling
) -> Report:
    """Lock on val, report on val and test. `predictions`: one row per film, COLUMNS (label 0 or 1, logit = uncalibrated
    log-odds of PNEUMONIA), and width, height, mode where known. `rendered`: films of val in every rendering, always
    the same films in the same order (columns rendering, label, patient, logit)."""
    if missing := sorted(set(COLUMNS) - set(predictions.columns)):
        raise UserError(f"the predictions lack the column {missing[0]}", "run `dvc repro evaluate` again")
    splits = {name: predictions[predictions.split == name] for name in ("val", "test")}
    for name, table in splits.items():
        if table.empty:
            raise UserError(f"the predictions hold no {name} film", "check the split section of params.yaml")
    locked = lock(splits["val"], rendered, rules, resampling)
    val = report_split(splits["val"], locked, resampling)
    other = resampling._replace(seed=resampling.seed + 1)  # neither's resamples are the other's
    test = report_split(splits["test"], locked, other)
    names = ("sensitivity", "specificity")
    gap = {name: estimate_difference(val.metrics[name], test.metrics[name]) for name in names}
    return Report(locked, val, test, gap)


def decide_films(films: pd.DataFrame, locked: Locked) -> pd.DataFrame:
    """`films` (column logit) with the columns prob_pneumonia and called (0 or 1)."""
    probability, called = locked.decide(films.logit.to_numpy())
    return films.assign(prob_pneumonia=probability, called=called.astype(int))


def report_split(table: pd.DataFrame, locked: Locked, resampling: Resampling) -> SplitReport:
    """Everything about one set of films (val, test or an external folder) under the locked decision."""
    label, logit, patient = table.label.to_numpy(), table.logit.to_numpy(dtype=float), table.patient.to_numpy()
    probability, called = locked.decide(logit)
    metrics, replicates = discriminate(label, logit, called, patient, *resampling)
    both = 0 < label.sum() < len(label)
    sure = locked.confidence(probability)
    confusion = {
        name: int(((label == truth) & (called == decision)).sum())
        for name, truth, decision in (("tp", 1, True), ("fp", 0, True), ("fn", 1, False), ("tn", 0, False))
    }
    return SplitReport(
        films=len(label),
        patients=len(np.unique(patient)),
        pneumonia=int(label.sum()),
        prevalence=float(label.mean()),
        confusion=confusion,
        metrics=metrics,
        calibration=evaluate_calibration(label, logit, locked.temperature.value, patient, *resampling),
        curves=Curves(
            roc=roc_curve(label, logit, patient, *resampling) if both else None,
            precision_recall=precision_recall_curve(label, logit) if both else None,
            prevalence=prevalence_curve(metrics, replicates),
            decision=decision_curve(label, probability, patient, *resampling),
            risk_coverage=risk_coverage(label, called, sure, patient, *resampling),
        ),
        selective=evaluate_abstention(label, called, locked.is_sure(probability), patient, *resampling),
        subgroups=evaluate_subgroups(label, logit, called, patient, subgroup_masks(table), *resampling),
    )


def subgroup_masks(table: pd.DataFrame) -> dict[str, Flags]:
    """Masks by what the table tells: subtype, name series, film size tercile, source mode, other columns of a CSV. A
    property that all films share makes no subgroup."""
    masks: dict[str, Flags] = {}
    subtype = table.subtype.to_numpy()
    for name in ("bacterial", "viral"):
        if (subtype == name).any():
            masks[name] = subtype == name
    keys = [read_name(path) for path in table.path]
    series = np.array([key.rpartition("-")[0] if kind == "normal" else "" for key, kind in keys])
    if len(named := sorted(set(series) - {""})) > 1:
        masks |= {f"series {name}": series == name for name in named}
    if {"width", "height"} <= set(table.columns):
        area = (table.width * table.height).to_numpy(dtype=float)
        first, second = np.quantile(area, [1 / 3, 2 / 3])
        if first < second:
            third = np.digitize(area, [first, second], right=True)
            masks |= {f"{name} films": third == rank for rank, name in enumerate(("small", "middle-sized", "large"))}
    if "mode" in table.columns and table["mode"].nunique() > 1:
        masks |= {f"mode {name}": (table["mode"] == name).to_numpy() for name in sorted(table["mode"].unique())}
    masks |= column_masks(table)
    return {name: mask for name, mask in masks.items() if mask.any()}


def known_films(films: pd.DataFrame, splits: pd.DataFrame) -> dict[str, str]:
    """Split by pixel hash, from films.csv and splits.csv; of a film in two splits, that nearest to the training."""
    table = splits.merge(films[["path", "pixel_sha256"]], on="path")
    table = table[table.pixel_sha256 != ""].sort_values("split", key=lambda split: split.map(SPLITS[::-1].index))
    return dict(zip(table.pixel_sha256, table.split, strict=True))  # the last of a key stays


def describe_package(info: PackageInfo, report: Report) -> PackageInfo:
    """The content of model.json for an evaluated model: `info` with its decision and its numbers on val and test."""
    measured = headline(report.to_json()) | {"estimates": to_json(report.test.metrics)}
    return info.with_locked(report.locked.to_json()).model_copy(update={"metrics": measured})


def headline(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers worth comparing between experiments, from the content of evaluation.json for metrics.json; undefined
    ones are left out."""
    chosen = {"val": ("auroc", "auroc_rendered"), "test": HEADLINE}
    metrics = {split: report[split]["metrics"] for split in chosen}
    values = {
        split: {name: metrics[split][name]["value"] for name in names if name in metrics[split]}
        for split, names in chosen.items()
    }
    return {split: {name: value for name, value in of.items() if value is not None} for split, of in values.items()}
