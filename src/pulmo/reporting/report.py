"""The report of an evaluation, typed. Its JSON is reports/evaluation.json, of which `saved` reads parts back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulmo.metrics.calibration import Calibration
from pulmo.metrics.curves import Curve, RiskCoverage
from pulmo.metrics.estimates import Estimate, to_json
from pulmo.metrics.locked import Locked
from pulmo.metrics.subgroups import Subgroup


@dataclass(frozen=True)
class Curves:
    """Curves of one set of films; the first two are None where it holds one class only."""

    roc: Curve | None
    precision_recall: Curve | None
    prevalence: Curve
    decision: Curve
    risk_coverage: RiskCoverage


@dataclass(frozen=True)
class SplitReport:
    """Everything about one set of films (val, test or films from elsewhere) under the locked decision."""

    films: int
    patients: int
    pneumonia: int
    prevalence: float
    confusion: dict[str, int]  # tp, fp, fn, tn
    metrics: dict[str, Estimate]  # by name of METRIC_NAMES; the baseline of auprc is the prevalence
    calibration: Calibration
    curves: Curves
    selective: dict[str, Estimate]  # coverage, error, sensitivity, specificity outside the abstention band
    subgroups: list[Subgroup]


class Finding(ABC):
    """The result of a probe: numbers for the report, doubts and a section for the model card, and pictures."""

    @abstractmethod
    def add_to(self, content: dict[str, Any]) -> None:
        """Put the numbers where they belong in the content of evaluation.json."""

    def doubts(self) -> list[str]:
        """One sentence for each thing that speaks against the model."""
        return []

    # Empty and yet not abstract, for most probes have no picture.
    def draw(self, folder: Path) -> None:  # noqa: B027
        """Draw its pictures into `folder`, where it has any."""


@dataclass(frozen=True)
class Section:
    """The place of a probe in the model card."""

    name: str
    title: str  # empty: a paragraph among the results instead of a section of its own
    template: Path  # Jinja, in which `part` is the finding
    finding: Finding | None  # None where it was not measured


@dataclass(frozen=True)
class Known:
    """The number of the model's own films among some films, by split (None where the package does not tell), and the
    same as one line."""

    films: dict[str, int] | None
    text: str


@dataclass(frozen=True)
class ExternalReport:
    """The report on films from elsewhere."""

    split: SplitReport  # of all films, as if each had been answered
    known: Known
    refused: Estimate  # share of the films that the model refuses when it is asked about them
    answers: dict[str, Estimate]  # like `split.selective`, of the films that are not refused
    own: dict[str, Estimate]  # each metric on the model's own test films; empty where it has none
    change: dict[str, Estimate]  # each metric less that on the model's own test films

    def to_json(self) -> dict[str, Any]:
        """The part `external` of the evaluation.json about them."""
        parts = {"known": self.known, "refused": self.refused, "answers": self.answers, "change": self.change}
        content: dict[str, Any] = to_json(vars(self.split) | parts)
        return content


@dataclass(frozen=True)
class Report:
    """The whole evaluation: the decision, both splits, and what the probes found."""

    locked: Locked
    val: SplitReport
    test: SplitReport
    gap: dict[str, Estimate]  # sensitivity and specificity, test less val
    sections: Sequence[Section] = ()

    @property
    def findings(self) -> dict[str, Finding]:
        """The measurements, by the name of the probe."""
        return {section.name: section.finding for section in self.sections if section.finding is not None}

    def to_json(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        parts = {"locked": self.locked, "val": self.val, "test": self.test, "gap": self.gap}
        content: dict[str, Any] = to_json(parts)
        for finding in self.findings.values():
            finding.add_to(content)
        content = to_json(content)
        return content
