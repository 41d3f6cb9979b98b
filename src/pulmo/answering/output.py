"""Answers as lines for people, JSON lines and CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable

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
    if row.answer is None:
        return _csv_line([row.film, *[""] * (len(_COLUMNS) - 3), str(row.report or ""), row.error])
    answer, model = row.answer, row.answer.model
    first = [row.film, answer.label, answer.prob_pneumonia, answer.threshold, str(answer.unsure).lower()]
    second = [answer.not_a_chest_film, str(answer.unlike_training).lower(), answer.note, answer.logit]
    bounds = [value for rate in (answer.sensitivity, answer.specificity) for value in (rate.value, rate.low, rate.high)]
    last = [model.name, model.version, model.sha256, str(answer.anyway).lower()]
    files = [str(path or "") for path in (row.heatmap, row.report)]
    return _csv_line(["" if cell is None else cell for cell in (*first, *second, *bounds, *last, *files, row.error)])


def threshold_text(answer: Answer) -> str:
    """The threshold, and what it was worth on the test films."""
    rates = [
        f"{name} {estimate_text(rate)}"
        for name, rate in (("sensitivity", answer.sensitivity), ("specificity", answer.specificity))
    ]
    return f"threshold {probability_text(answer.threshold)}, on the test films: {', '.join(rates)}"


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(quote(cell) if isinstance(cell, str) else cell for cell in cells)
    return line.getvalue()[:-1].encode("utf-8", "backslashreplace").decode()  # a name need not be Unicode


WRITERS: dict[str, Callable[[Row], str]] = {"text": to_text, "json": to_json, "csv": to_csv}
