"""The one decision: temperature, threshold and abstention band, locked on validation."""

from dataclasses import dataclass

import pandas as pd

from pulmo.metrics.calibration import Temperature, fit_temperature, to_probability
from pulmo.metrics.decisions import Abstention, OperatingPoint, choose_abstention, choose_operating_point
from pulmo.metrics.ranking import Flags, Floats


@dataclass(frozen=True)
class Locked:
    """What validation decided and no other film may change; the threshold is on the calibrated probability."""

    temperature: Temperature
    operating_point: OperatingPoint
    abstention: Abstention

    def decide(self, logits: Floats) -> tuple[Floats, Flags]:
        """Calibrated probability of PNEUMONIA, and whether the film is called so."""
        probability = to_probability(logits, self.temperature.value)
        return probability, probability >= self.operating_point.threshold


def lock(
    val: pd.DataFrame,
    rendered: pd.DataFrame | None = None,
    *,
    policy: str,
    min_sensitivity: float,
    threshold: float,
    target_error: float,
    resamples: int,
    seed: int,
) -> Locked:
    """Fit temperature, then threshold, then abstention band on the validation films (columns label, logit, patient).

    `rendered`: films of them in every rendering, same columns, for the policy youden_rendered.
    """
    temperature = fit_temperature(val.label, val.logit)
    films = rendered if rendered is not None and policy == "youden_rendered" else val
    point = choose_operating_point(
        films.label,
        to_probability(films.logit, temperature.value),
        films.patient,
        policy,
        min_sensitivity,
        threshold,
        resamples,
        seed,
    )
    probability = to_probability(val.logit, temperature.value)
    return Locked(temperature, point, choose_abstention(val.label, probability, point.threshold, target_error))
