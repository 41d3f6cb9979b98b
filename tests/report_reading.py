"""The content of a structured report, as tests look at it."""

from typing import Any


def walk(item: Any) -> list[Any]:
    return [item, *(deeper for child in item.get("ContentSequence", []) for deeper in walk(child))]


def texts(report: Any) -> list[str]:
    return [str(item.TextValue) for item in walk(report) if item.get("ValueType") == "TEXT"]


def numbers(report: Any) -> dict[str, list[float]]:
    """Values by the codes of their names, and those of their properties after them."""
    found = {}
    for item in walk(report):
        if item.get("ValueType") == "NUM" and item.RelationshipType == "CONTAINS":
            values = [float(part.MeasuredValueSequence[0].NumericValue) for part in walk(item)]
            found[str(item.ConceptNameCodeSequence[0].CodeValue)] = values
    return found


def judgements(report: Any) -> dict[str, str]:
    return {
        str(item.ConceptNameCodeSequence[0].CodeMeaning): str(item.ConceptCodeSequence[0].CodeMeaning)
        for item in walk(report)
        if item.get("ValueType") == "CODE"
    }
