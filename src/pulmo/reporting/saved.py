"""Parts of an earlier reports/evaluation.json, as gates, leaderboard, comparison and summary ask for them."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pulmo.base.errors import UserError
from pulmo.base.paths import EVALUATION
from pulmo.metrics.estimates import Estimate
from pulmo.metrics.reliability import Chance

T = TypeVar("T")


@dataclass(frozen=True)
class RenderedCalibration:
    """The calibration error of all renderings of validation together, and how many films they are of."""

    ece: Chance
    films: int


@dataclass(frozen=True)
class ShortcutOnVal:
    """The AUROC of one family of shortcuts on validation; None where it is the same for every film."""

    val: Estimate | None


def read_part(report: Any, kind: type[T], *keys: str) -> T:
    """The part of the content of an evaluation.json under these keys, one in the other; UserError where it is missing
    or of another kind. The other parts may be those of an earlier version."""
    part = report
    try:
        for key in keys:
            part = part[key]
        return TypeAdapter(kind).validate_python(part)
    except (KeyError, TypeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "missing"
        raise UserError(
            f"{EVALUATION} is damaged or of another version ({'.'.join(keys)}: {reason})", "run `dvc repro` again"
        ) from error
