"""The whole evaluation, from a table of log-odds to one report that holds every number, curve and interval."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from pulmo.base.errors import UserError
from pulmo.films.labels import SPLITS
from pulmo.films.names import read_name
from pulmo.metrics.bootstrap import bootstrap
from pulmo.metrics.calibration import evaluate_calibration
from pulmo.metrics.curves import decision_curve, precision_recall_curve, prevalence_curve, risk_coverage, roc_curve
from pulmo.metrics.decisions import confidence, evaluate_abstention, is_answered
from pulmo.metrics.discrimination import discriminate
from pulmo.metrics.estimates import estimate_auroc, estimate_difference
from pulmo.metrics.locked import Locked, lock
from pulmo.metrics.ranking import Flags, Floats, ranking
from pulmo.metrics.subgroups import evaluate_subgroups

COLUMNS = ("path", "split", "patient", "label", "subtype", "logit")
HEADLINE = ("auroc", "accuracy", "sensitivity", "specificity", "f1")


def evaluate_predictions(
    predictions: pd.DataFrame,
    rendered: pd.DataFrame | None = None,
    *,
    policy: str = "min_sensitivity",
    min_sensitivity: float = 0.95,
    threshold: float = 0.5,
    target_error: float = 0.02,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[dict[str, Any], Locked]:
    """Lock on val, report on val and test. `predictions`: one row per film, COLUMNS (label 0 or 1, logit = uncalibrated
    log-odds of PNEUMONIA), and width, height, mode where known. `rendered`: films of val in every rendering, always
    the same films in the same order (columns rendering, label, patient, logit).

    Returns `Locked` for the model package and a report for JSON:
    - locked: temperature {value, note}, operating_point {policy, threshold, low, high}, abstention {target_error, low,
      high, reached}, all of them from val;
    - gap: sensitivity and specificity, each an estimate of test less val;
    - val, test: what `report_split` returns; val has metrics.auroc_rendered, the mean AUROC over the renderings, and
      renderings, the AUROC of each, where there are any.
    """
    if missing := sorted(set(COLUMNS) - set(predictions.columns)):
        raise UserError(f"the predictions lack the column {missing[0]}", "run `dvc repro evaluate` again")
    splits = {name: predictions[predictions.split == name] for name in ("val", "test")}
    for name, table in splits.items():
        if table.empty:
            raise UserError(f"the predictions hold no {name} film", "check the split section of params.yaml")
    locked = lock(
        splits["val"],
        rendered,
        policy=policy,
        min_sensitivity=min_sensitivity,
        threshold=threshold,
        target_error=target_error,
        resamples=resamples,
        seed=seed,
    )
    report: dict[str, Any] = {"locked": asdict(locked)}
    for shift, (name, table) in enumerate(splits.items()):  # a seed each: neither's resamples are the other's
        report[name] = report_split(table, locked, resamples, seed + shift)
    if rendered is not None:
        report["val"]["renderings"] = evaluate_renderings(rendered, resamples, seed)
        report["val"]["metrics"]["auroc_rendered"] = report["val"]["renderings"].pop("mean")
    val, test = (report[name]["metrics"] for name in ("val", "test"))
    report["gap"] = {name: estimate_difference(val[name], test[name]) for name in ("sensitivity", "specificity")}
    return report, locked


def evaluate_renderings(rendered: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Estimates of the AUROC of each rendering, by its name, and of their `mean`; patients are resampled jointly."""
    tables = {str(name): table for name, table in rendered.groupby("rendering", sort=False)}
    first = next(iter(tables.values()))
    label, patient = first.label.to_numpy() == 1, first.patient.to_numpy()
    ranked = {name: ranking(label, table.logit.to_numpy(dtype=float)) for name, table in tables.items()}

    def statistic(weights: Floats) -> dict[str, Floats]:
        each = {name: rank(weights)["auroc"] for name, rank in ranked.items()}
        return each | {"mean": np.mean(list(each.values()), axis=0)}

    values, replicates = bootstrap(statistic, label, patient, resamples, seed)
    return {name: estimate_auroc(float(values[name]), replicates[name], label, patient) for name in values}


def report_split(table: pd.DataFrame, locked: Locked, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Everything about one set of films (val, test or an external folder) under the locked threshold, for JSON.

    An estimate is {value, low, high, films, patients} and maybe a note; None where undefined. The report holds
    - films, patients, pneumonia, prevalence, confusion {tp, fp, fn, tn};
    - metrics: an estimate for each of `metrics.METRICS`; the baseline of auprc is the prevalence;
    - calibration: {before, after} of `calibration.evaluate_calibration`;
    - curves: roc and precision_recall (None with one class), prevalence, decision, risk_coverage, as in `curves`;
    - selective: `decisions.evaluate_abstention` of the locked band;
    - subgroups: rows of `subgroups.evaluate_subgroups`.
    """
    label, logit, patient = table.label.to_numpy(), table.logit.to_numpy(dtype=float), table.patient.to_numpy()
    probability, called = locked.decide(logit)
    metrics, replicates = discriminate(label, logit, called, patient, resamples, seed)
    both = 0 < label.sum() < len(label)
    sure = confidence(probability, locked.operating_point.threshold)
    confusion = {
        name: int(((label == truth) & (called == decision)).sum())
        for name, truth, decision in (("tp", 1, True), ("fp", 0, True), ("fn", 1, False), ("tn", 0, False))
    }
    return {
        "films": len(label),
        "patients": len(np.unique(patient)),
        "pneumonia": int(label.sum()),
        "prevalence": float(label.mean()),
        "confusion": confusion,
        "metrics": metrics,
        "calibration": evaluate_calibration(label, logit, locked.temperature.value, patient, resamples, seed),
        "curves": {
            "roc": roc_curve(label, logit, patient, resamples, seed) if both else None,
            "precision_recall": precision_recall_curve(label, logit) if both else None,
            "prevalence": prevalence_curve(metrics, replicates),
            "decision": decision_curve(label, probability, patient, resamples, seed),
            "risk_coverage": risk_coverage(label, called, sure, patient, resamples, seed),
        },
        "selective": evaluate_abstention(
            label, called, is_answered(probability, locked.abstention), patient, resamples, seed
        ),
        "subgroups": evaluate_subgroups(label, logit, called, patient, subgroup_masks(table), resamples, seed),
    }


def subgroup_masks(table: pd.DataFrame) -> dict[str, Flags]:
    """Masks by what the table tells: subtype, name series, film size tercile, source mode. A property that all films
    share makes no subgroup."""
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
    return {name: mask for name, mask in masks.items() if mask.any()}


def known_films(films: pd.DataFrame, splits: pd.DataFrame) -> dict[str, str]:
    """Split by pixel hash, from films.csv and splits.csv; of a film in two splits, that nearest to the training."""
    table = splits.merge(films[["path", "pixel_sha256"]], on="path")
    table = table[table.pixel_sha256 != ""].sort_values("split", key=lambda split: split.map(SPLITS[::-1].index))
    return dict(zip(table.pixel_sha256, table.split, strict=True))  # the last of a key stays


def headline(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers worth comparing between experiments, for metrics.json; undefined ones are left out."""
    chosen = {"val": ("auroc", "auroc_rendered"), "test": HEADLINE}
    found = {split: report[split]["metrics"] for split in chosen}
    values = {
        split: {name: found[split][name]["value"] for name in names if name in found[split]}
        for split, names in chosen.items()
    }
    return {split: {name: value for name, value in of.items() if value is not None} for split, of in values.items()}
