"""Reasons to doubt a model: one sentence for each check of its report that speaks against it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pulmo.metrics.estimates import estimate_text, number
from pulmo.reporting.report import Report, SplitReport

FEW_PATIENTS = 100  # in one class of test


def list_doubts(report: Report, leakage: Mapping[str, Any]) -> list[str]:
    """Every doubt, those of the probes included; empty where no check has one. `leakage`: the audit of the split."""
    doubts = [*_doubt_split(leakage), *_doubt_performance(report), *_doubt_calibration(report.test)]
    doubts += _doubt_subgroups(report.test)
    for finding in report.findings.values():
        doubts += finding.doubts()
    patients = min(report.test.metrics[name].patients for name in ("sensitivity", "specificity"))
    if patients < FEW_PATIENTS:
        doubts.append(f"Patients in the smaller class of test: only {patients}, so the intervals are wide.")
    return doubts


def _doubt_split(leakage: Mapping[str, Any]) -> Iterator[str]:
    for key, what in (("patients", "Patients"), ("exact_duplicates", "Pixel-identical films")):
        if crossing := leakage[f"{key}_across_splits"]:
            yield f"{what} in more than one split: {len(crossing):,}, which makes results too good."
    if blind := leakage.get("films_not_compared"):
        yield f"Films that could not be compared: {blind:,}. One may stand in more than one split."
    if unknown := leakage.get("films_of_unknown_patients"):
        yield (
            f"Films that name no patient: {unknown:,}. A patient may stand in more than one split, and the intervals "
            "take each of these films for a patient."
        )


def _doubt_performance(report: Report) -> Iterator[str]:
    auroc = report.test.metrics["auroc"]
    if auroc.value is not None and (auroc.low is None or auroc.low <= 0.5):
        yield f"That it tells the classes better than chance is not shown: AUROC {estimate_text(auroc)} on test."
    for name, gap in report.gap.items():
        if gap.high is not None and gap.high < 0:
            yield f"{name.capitalize()} changes by {estimate_text(gap)} from validation to test."
    band, error = report.locked.abstention, report.test.selective["error"]
    if band.reached and error.low is not None and error.low > band.target_error:
        yield (
            f"Answers outside the abstention band are wrong more often than the {band.target_error:.3g} aimed at: "
            f"{estimate_text(error)}."
        )


def _doubt_calibration(test: SplitReport) -> Iterator[str]:
    before, after = test.calibration.before.log_loss, test.calibration.after.log_loss
    if after.value is not None and before.value is not None and after.value > before.value:
        yield (
            f"The temperature that validation chose makes probabilities worse on test: log loss {estimate_text(after)} "
            f"with it, {estimate_text(before)} without."
        )
    ece = test.calibration.after.ece
    if ece.value > ece.chance_high:
        yield (
            f"Probabilities are off on test: the calibration error (ECE) is {ece.value:.3f}, while perfect "
            f"calibration would stay below {ece.chance_high:.3f} in 19 of 20 such tests."
        )


def _doubt_subgroups(test: SplitReport) -> Iterator[str]:
    for name in ("sensitivity", "specificity"):
        gaps = {row.name: row.gap[name] for row in test.subgroups if row.gap[name].high is not None}
        if weak := [f"{group} ({estimate_text(gap)})" for group, gap in gaps.items() if number(gap.high) < 0]:
            yield (
                f"{name.capitalize()} on test is lower than among the other films for {', '.join(weak)}; by chance "
                f"alone, one in 40 of such comparisons says so, and there are {len(gaps)}."
            )
