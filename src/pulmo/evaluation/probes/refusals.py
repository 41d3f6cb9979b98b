"""The shares of its own validation and test films that a model refuses as unlike those that it learnt from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pulmo.evaluation.novelty import PASSING
from pulmo.evaluation.probes.probe import Probe, Subject
from pulmo.metrics.bootstrap import Resampling, bootstrap
from pulmo.metrics.estimates import Estimate, estimate_proportion, number
from pulmo.metrics.ranking import Floats
from pulmo.reporting.report import Finding

MANY = 0.1  # four times the share of validation


@dataclass(frozen=True)
class Refusals(Finding):
    """The share of films that lie beyond the limit, which lets `passing` of the validation films through."""

    val: Estimate
    test: Estimate
    passing: float = PASSING

    def add_to(self, content: dict[str, Any]) -> None:
        """The key `refusals`."""
        content["refusals"] = self

    def doubts(self) -> list[str]:
        """Test films that are refused so often that they must be of another kind than the train films."""
        share = number(self.test.value)
        return [f"{share:.0%} of the test films are unlike those that it learnt from."] if share > MANY else []


def measure_refusals(films: pd.DataFrame, resampling: Resampling) -> Refusals:
    """From a table of val and test with columns split, label, patient and unlike."""
    val, test = (_estimate_share(films[films.split == split], resampling) for split in ("val", "test"))
    return Refusals(val, test)


def _estimate_share(films: pd.DataFrame, resampling: Resampling) -> Estimate:
    label, patient = films.label.to_numpy(), films.patient.to_numpy()
    unlike = films.unlike.to_numpy(dtype=float)

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {"refused": weights @ unlike / weights.sum(axis=1)}

    value, replicates = bootstrap(statistic, label, patient, *resampling)
    return estimate_proportion(float(value["refused"]), replicates["refused"], patient)


def _measure(subject: Subject) -> Refusals | None:
    films = subject.predictions
    return measure_refusals(films, subject.resampling) if "unlike" in films else None


PROBE = Probe("refusals", "", Path(__file__).with_suffix(".md.jinja"), _measure)
