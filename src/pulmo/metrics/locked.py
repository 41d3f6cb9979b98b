"""The one decision: temperature, threshold and abstention band, locked on validation.

Whatever turns log-odds into an answer calls `Locked`: the evaluation, its probes and pictures, external films, answers.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter, ValidationError

from pulmo.base.errors import UserError
from pulmo.metrics.bootstrap import Resampling
from pulmo.metrics.calibration import Temperature, fit_temperature, to_probability
from pulmo.metrics.decisions import (
    Abstention,
    OperatingPoint,
    choose_abstention,
    choose_operating_point,
    confidence,
    is_answered,
    is_called,
    to_log_odds,
)
from pulmo.metrics.ranking import Flags, Floats

if TYPE_CHECKING:
    import pandas as pd  # which answers need not load


@dataclass(frozen=True)
class Locked:
    """The decision of validation, which no other film may change; the threshold is on the calibrated probability."""

    temperature: Temperature
    operating_point: OperatingPoint
    abstention: Abstention

    @property
    def threshold(self) -> float:
        """The calibrated probability from which on a film is called PNEUMONIA."""
        return self.operating_point.threshold

    @property
    def edges(self) -> Floats:
        """Log-odds before calibration at which the answer changes, lowest first: the threshold and the band's ends."""
        probabilities = np.array([self.threshold, self.abstention.low, self.abstention.high])
        return np.asarray(np.sort(to_log_odds(probabilities) * self.temperature.value))

    def calibrate(self, logits: ArrayLike) -> Floats:
        """Calibrated probabilities of PNEUMONIA from log-odds, which must be finite: NaN would be called NORMAL."""
        if not np.isfinite(logits).all():
            raise ValueError("log-odds that are not finite have no answer")
        return to_probability(logits, self.temperature.value)

    def call(self, probabilities: ArrayLike) -> Flags:
        """The films that are called PNEUMONIA, by their calibrated probabilities."""
        return is_called(probabilities, self.threshold)

    def decide(self, logits: ArrayLike) -> tuple[Floats, Flags]:
        """Calibrated probability of PNEUMONIA, and whether the film is called so."""
        probability = self.calibrate(logits)
        return probability, self.call(probability)

    def confidence(self, probabilities: ArrayLike) -> Floats:
        """Distance of each probability from the threshold in log-odds: 0 at the threshold, more is surer."""
        return confidence(probabilities, self.threshold)

    def is_sure(self, probabilities: ArrayLike) -> Flags:
        """Which films lie outside the abstention band; the others are better left to a person."""
        return is_answered(probabilities, self.abstention)

    def to_json(self) -> dict[str, Any]:
        """The content of `locked` in model.json and evaluation.json, which `read_locked` reads back."""
        return asdict(self)


_READER = TypeAdapter(Locked)


def read_locked(content: Mapping[str, Any]) -> Locked:
    """The decision from `locked` of a model.json or evaluation.json; UserError where it holds none."""
    if not content:
        raise UserError("the package has no locked threshold", "use models/package, which `dvc repro` writes")
    cure = "the package was edited, or made by another version of Pulmo; copy it again"
    try:
        locked = _READER.validate_python(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("locked", *first["loc"]))
        raise UserError(f"{key}: {first['msg']}", cure) from None
    point, band = locked.operating_point, locked.abstention
    possible = {
        "temperature.value": 0 < locked.temperature.value < math.inf,
        "operating_point.threshold": 0 <= point.threshold <= 1,
        "abstention": 0 <= band.low <= band.high <= 1,
    }
    if wrong := [key for key, is_possible in possible.items() if not is_possible]:
        raise UserError(f"locked.{wrong[0]} is impossible", cure)
    return locked


@dataclass(frozen=True)
class LockingRules:
    """The rules that choose the decision: a policy of `choose_operating_point` with its numbers, and the error aimed at
    by the answers outside the abstention band."""

    policy: str = "min_sensitivity"
    min_sensitivity: float = 0.95
    threshold: float = 0.5
    target_error: float = 0.02


def lock(val: "pd.DataFrame", rendered: "pd.DataFrame | None", rules: LockingRules, resampling: Resampling) -> Locked:
    """Fit temperature, then threshold, then abstention band on the validation films (columns label, logit, patient).

    `rendered`: films of them in every rendering, same columns. Where there are any, they choose temperature and band,
    so that both hold on films that look unlike validation, and the threshold of the policy youden_rendered.
    """
    seen = val if rendered is None else rendered
    temperature = fit_temperature(seen.label, seen.logit)
    films = seen if rules.policy == "youden_rendered" else val
    point = choose_operating_point(
        films.label,
        to_probability(films.logit, temperature.value),
        films.patient,
        rules.policy,
        rules.min_sensitivity,
        rules.threshold,
        resampling,
    )
    probability = to_probability(seen.logit, temperature.value)
    band = choose_abstention(seen.label, probability, point.threshold, rules.target_error)
    return Locked(temperature, point, band)
