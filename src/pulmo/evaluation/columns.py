"""Subgroups by the columns that a CSV of labels had besides: sex, age, view and the like."""

import re

import numpy as np
import pandas as pd

from pulmo.films.rows.table import CSV_PREFIX
from pulmo.metrics.ranking import Flags

_MOST_VALUES = 6  # of a column that makes subgroups
_FEWEST = 10  # films of a subgroup
_AGE = re.compile(r"(?:.*[ _-])?age(?:[ _-].*)?|(?:.*[ _-])?alter")
_YEARS = re.compile(r"0*(\d+(?:\.\d+)?)\s*([YMWD]?)")  # 63, 063Y as in DICOM, 018M
_A_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
_AGES = {"below 18": (0, 18), "18 to 64": (18, 65), "65 and above": (65, np.inf)}


def column_masks(table: pd.DataFrame) -> dict[str, Flags]:
    """Masks by each column of a CSV with two to six values, and by age. Values of fewer than ten films, and columns
    whose values say no more than the label, make no subgroup."""
    masks: dict[str, Flags] = {}
    for column in (name for name in table.columns if name.startswith(CSV_PREFIX)):
        name = column.removeprefix(CSV_PREFIX)
        values = _age_groups(table[column]) if _AGE.fullmatch(name) else table[column]
        counts = values[values != ""].value_counts()
        classes = table.label[values != ""].groupby(values[values != ""]).nunique()
        if 2 <= len(counts) <= _MOST_VALUES and (classes > 1).any():
            masks |= {
                f"{name} {value}": (values == value).to_numpy() for value in sorted(counts.index[counts >= _FEWEST])
            }
    return masks


def _age_groups(ages: "pd.Series[str]") -> "pd.Series[str]":
    def group(age: str) -> str:
        if not (match := _YEARS.fullmatch(age.strip().upper())):
            return ""
        years = float(match[1]) / _A_YEAR[match[2]]
        return next(name for name, (low, high) in _AGES.items() if low <= years < high)

    return ages.map(group)
