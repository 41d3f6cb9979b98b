"""The model's answer for one film, and the decision behind it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pulmo.metrics.estimates import ValueInInterval
from pulmo.metrics.locked import read_locked
from pulmo.package.info import PackageInfo


@dataclass(frozen=True)
class ModelId:
    """The model that answered."""

    name: str  # of its experiment, or the folder of its package
    version: str  # in the registry, or the Git revision that made it
    sha256: str  # of its weights


@dataclass(frozen=True)
class Answer:
    """The model's answer for one film. One that is refused has no label, probability or log-odds, unless it was to be
    answered anyway."""

    label: str | None  # NORMAL or PNEUMONIA
    prob_pneumonia: float | None  # calibrated
    threshold: float  # at or above it the film is called PNEUMONIA
    sensitivity: ValueInInterval  # of that threshold, on test; None where the package does not tell
    specificity: ValueInInterval
    unsure: bool  # within the abstention band, or refused: leave it to a person
    not_a_chest_film: str | None  # the reason, where header or colour say that it is none; None where it passed
    unlike_training: bool  # its features lie far from those of the train films: do not rely on the answer
    note: str  # one line, where the film is not shown as its file asks; else empty
    logit: float | None  # log-odds of PNEUMONIA before calibration
    model: ModelId
    anyway: bool  # answered although it is refused

    @property
    def refusal(self) -> str:
        """The reason why the answer is not to be relied on at all; empty where nothing speaks against it."""
        if self.not_a_chest_film:
            return f"no chest film: {self.not_a_chest_film}"
        return "unlike the films that the model learnt from" if self.unlike_training else ""

    def to_dict(self) -> dict[str, Any]:
        """As nested dictionaries of plain values, for JSON."""
        return asdict(self)


class Decider:
    """Turns log-odds into answers, by the decision that validation locked."""

    def __init__(self, info: PackageInfo, model: ModelId) -> None:
        self.locked = read_locked(info.locked)
        self.model = model
        self.classes = info.classes
        estimates = info.metrics.get("estimates", {})
        self.sensitivity, self.specificity = (
            ValueInInterval(*(estimates.get(name, {}).get(end) for end in ("value", "low", "high")))
            for name in ("sensitivity", "specificity")
        )

    def answer(
        self, logit: float, note: str = "", not_chest: str = "", unlike: bool = False, anyway: bool = False
    ) -> Answer:
        """The answer that follows from a log-odds; `note`, `not_chest` and `unlike` are about the film.

        Here alone a film that can be decoded is refused its label: where it is no chest film, or unlike those that the
        model learnt from, unless it is to be answered `anyway`.
        """
        probability, called = self.locked.decide(np.array([logit], dtype=np.float64))
        refused = bool(not_chest or unlike)
        labelled = anyway or not refused
        return Answer(
            label=self.classes[int(called[0])] if labelled else None,
            prob_pneumonia=float(probability[0]) if labelled else None,
            threshold=self.locked.threshold,
            sensitivity=self.sensitivity,
            specificity=self.specificity,
            unsure=not labelled or not self.locked.is_sure(probability)[0],
            not_a_chest_film=not_chest or None,
            unlike_training=unlike,
            note=note,
            logit=float(logit) if labelled else None,
            model=self.model,
            anyway=refused and anyway,
        )
