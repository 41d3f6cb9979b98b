"""Answers as lines for people, JSON lines and CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable

from pulmo.answering.answer import Answer, Interval
from pulmo.answering.batch import Row
from pulmo.metrics.estimates import estimate_text, probability_text

_COLUMNS = (
    *("film", "label", "prob_pneumonia", "threshold", "unsure", "not_a_chest_film", "unlike_training", "note", "logit"),
    *("sensitivity", "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high"),
    *("model", "model_version", "model_sha256", "heatmap", "error"),
)


def to_text(row: Row) -> str:
    """A line for people."""
    if row.answer is None:
        return f"{'no answer':>9}  {'':45}  {row.film}: {row.error}"
    answer = row.answer
    probability, threshold = (probability_text(value) for value in (answer.prob_pneumonia, answer.threshold))
    remarks = [answer.refusal, "unsure: leave it to a person" if answer.unsure else "", answer.note]
    remark = "".join(f"  ({text})" for text in remarks if text)
    return f"{answer.label:>9}  prob_pneumonia {probability:<9}  threshold {threshold:<9}  {row.film}{remark}"


def to_json(row: Row) -> str:
    """A line of JSON with every part of the answer, or an `error`."""
    content = {"film": row.film} | (row.answer.to_dict() if row.answer else {})
    if row.refused:
        content |= {name: getattr(row.refused, name) for name in ("not_a_chest_film", "unlike_training")}
    content |= {"heatmap": str(row.heatmap) if row.heatmap else None, "error": row.error or None}
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def csv_header() -> str:
    """The first line of the CSV."""
    return _csv_line(_COLUMNS)


def to_csv(row: Row) -> str:
    """A line of CSV, with empty cells where there is no answer."""
    if row.answer is None:
        return _csv_line([row.film, *[""] * (len(_COLUMNS) - 2), row.error])
    answer, found = row.answer, row.answer.model
    first = [row.film, answer.label, answer.prob_pneumonia, answer.threshold, str(answer.unsure).lower()]
    second = [answer.not_a_chest_film or "", str(answer.unlike_training).lower(), answer.note, answer.logit]
    bounds = [value for interval in (answer.sensitivity, answer.specificity) for value in _bounds(interval)]
    return _csv_line([*first, *second, *bounds, found.name, found.version, found.sha256, row.heatmap or "", ""])


def threshold_text(answer: Answer) -> str:
    """The threshold, and what it was worth on the test films."""
    rates = [
        f"{name} {estimate_text({'value': rate.value, 'low': rate.low, 'high': rate.high})}"
        for name, rate in (("sensitivity", answer.sensitivity), ("specificity", answer.specificity))
    ]
    return f"threshold {probability_text(answer.threshold)}, on the test films: {', '.join(rates)}"


def _bounds(interval: Interval) -> list[object]:
    return ["" if value is None else value for value in (interval.value, interval.low, interval.high)]


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


WRITERS: dict[str, Callable[[Row], str]] = {"text": to_text, "json": to_json, "csv": to_csv}
