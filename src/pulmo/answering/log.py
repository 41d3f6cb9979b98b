"""A line for each answer of a server, for whoever looks later whether films or answers drift.

Nothing in it names a person: no name of a file, no text of a header, no picture.
"""

import json
import os
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulmo.answering.answer import Answer
from pulmo.answering.predictor import Score
from pulmo.base.errors import UserError
from pulmo.base.process import tell
from pulmo.images.film import FittedFilm


class AnswerLog:
    """A file of JSON lines that grows; several servers may write to one."""

    def __init__(self, path: Path) -> None:
        """UserError where it cannot be written to."""
        self._path = path
        self._lock = threading.Lock()
        self._failing = False
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"--log {path}: {error.strerror}", "name a file in a folder that can be written to"
            ) from None

    def write(self, film: FittedFilm, score: Score, answer: Answer) -> None:
        """Add a line; a disk that is full costs lines, and is told on stderr once, but no answer."""
        line = json.dumps(_describe(film, score, answer), allow_nan=False) + "\n"
        with self._lock:
            try:
                os.write(self._file, line.encode())  # a single write, so that lines of several servers never mix
                self._failing = False
            except OSError as error:
                if not self._failing:
                    tell(f"warning: --log {self._path}: {error.strerror}")
                self._failing = True


def _describe(film: FittedFilm, score: Score, answer: Answer) -> dict[str, Any]:
    pixels = film.pixels
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": asdict(answer.model),
        "film": {
            "seen_sha256": sha256(pixels.tobytes()).hexdigest(),  # of the square that the network sees
            "width": film.width,  # pixels of the file
            "height": film.height,
            "mean": round(float(pixels.mean()), 2),  # gray levels of that square
            "deviation": round(float(pixels.std()), 2),
            "black": round(float((pixels == 0).mean()), 4),  # share of it
            "white": round(float((pixels == 255).mean()), 4),
            "distance": score.distance,  # from the train films
            "has_note": bool(film.note),
        },
        "answer": {
            "label": answer.label,
            "prob_pneumonia": answer.prob_pneumonia,
            "logit": answer.logit,
            "unsure": answer.unsure,
            "not_a_chest_film": bool(answer.not_a_chest_film),
            "unlike_training": answer.unlike_training,
            "anyway": answer.anyway,
        },
    }
