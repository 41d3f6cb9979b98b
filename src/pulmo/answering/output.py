"""Answers as lines for people, JSON lines and CSV."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from pulmo.answering.answer import Answer
from pulmo.answering.batch import Row
from pulmo.base.files import quote
from pulmo.base.names import show_name
from pulmo.metrics.estimates import estimate_text, probability_text

_COLUMNS = (
    *("film", "label", "prob_pneumonia", "threshold", "unsure", "not_a_chest_film", "unlike_training", "note", "logit"),
    *("sensitivity", "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high"),
    *("model", "model_version", "model_sha256", "anyway", "heatmap", "dicom_sr", "error"),
)


def to_text(row: Row) -> str:
    """A line for people."""
    answer = row.answer
    if answer is None or answer.prob_pneumonia is None:
        return f"{'no answer':>9}  {'':45}  {show_name(row.film)}: {row.error}"
    probability, threshold = (probability_text(value) for value in (answer.prob_pneumonia, answer.threshold))
    remarks = [answer.refusal, "unsure: leave it to a person" if answer.unsure else "", answer.note]
    remark = "".join(f"  ({text})" for text in remarks if text)
    return (
        f"{answer.label:>9}  prob_pneumonia {probability:<9}  threshold {threshold:<9}  {show_name(row.film)}{remark}"
    )


def to_json(row: Row) -> str:
    """A line of JSON with every part of the answer, and an `error` where it has no label."""
    content = {"film": row.film} | (row.answer.to_dict() if row.answer else {})
    content |= {"heatmap": str(row.heatmap) if row.heatmap else None}
    content |= {"dicom_sr": str(row.report) if row.report else None, "error": row.error or None}
    return json.dumps(content, ensure_ascii=not row.film.isprintable(), allow_nan=False)


def csv_header() -> str:
    """The first line of the CSV."""
    return _csv_line(_COLUMNS)


def to_csv(row: Row) -> str:
    """A line of CSV, with empty cells for what is not answered."""
    cells: dict[str, object] = {"film": row.film, "heatmap": row.heatmap, "dicom_sr": row.report, "error": row.error}
    if answer := row.answer:
        cells |= answer.to_dict()
        for name, rate in (("sensitivity", answer.sensitivity), ("specificity", answer.specificity)):
            cells |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        model = answer.model
        cells |= {"model": model.name, "model_version": model.version, "model_sha256": model.sha256}
    return _csv_line(cells.get(name) for name in _COLUMNS)


def threshold_text(answer: Answer) -> str:
    """The threshold, and what it was worth on the test films."""
    rates = [
        f"{name} {estimate_text(rate)}"
        for name, rate in (("sensitivity", answer.sensitivity), ("specificity", answer.specificity))
    ]
    return f"threshold {probability_text(answer.threshold)}, on the test films: {', '.join(rates)}"


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(map(_to_cell, cells))
    return line.getvalue()[:-1].encode("utf-8", "backslashreplace").decode()  # a name need not be Unicode


def _to_cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return quote(str(value)) if isinstance(value, str | Path) else value
