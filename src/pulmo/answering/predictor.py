"""One film in, one answer out: the same decoding, network, temperature and threshold that were evaluated."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pulmo.images.decode import read_film
from pulmo.images.film import ImageError
from pulmo.metrics.locked import read_locked
from pulmo.model.classifier import Classifier, load_classifier

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the model says of one film."""

    label: str  # NORMAL or PNEUMONIA
    prob_pneumonia: float  # calibrated
    threshold: float  # at or above it the film is called PNEUMONIA
    logit: float  # log-odds of PNEUMONIA before calibration


class Predictor:
    """A model package ready to answer; UserError where its threshold is not yet locked."""

    def __init__(self, package: Classifier, device: str = "auto", precision: str = "fp32") -> None:
        self.package = package
        self.locked = read_locked(package.info.locked)
        self.device = device
        self.precision = precision

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """From the folder of a package, such as models/package."""
        return cls(load_classifier(folder), device)

    def predict(self, films: Sequence[bytes | Path]) -> list[Answer]:
        """Answers in the order of the films, given as file contents or paths; ImageError where one is no film, naming
        it by its path or its place."""
        images = [self._read(film, place) for place, film in enumerate(films, start=1)]
        return [self.answer(logit) for logit in self.score(np.stack(images))] if images else []

    def _read(self, film: bytes | Path, place: int) -> np.ndarray:
        name = film if isinstance(film, Path) else f"film {place}"
        try:
            pixels, note = read_film(film, self.package.info.size, self.package.info.fit)
        except ImageError as error:
            raise ImageError(f"{name}: {error.message}", error.hint) from None
        if note:
            _log.warning("%s: %s", name, note)
        return pixels

    def score(self, images: np.ndarray) -> np.ndarray:
        """Log-odds of PNEUMONIA, float32 (N,), of fitted gray images uint8 (N, S, S)."""
        return self.package.score(images, device=self.device, precision=self.precision)

    def answer(self, logit: float) -> Answer:
        """The answer that follows from a log-odds."""
        probability, called = self.locked.decide(np.array([logit]))
        label = self.package.info.classes[int(called[0])]
        return Answer(label, float(probability[0]), self.locked.threshold, float(logit))
