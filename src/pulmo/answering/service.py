"""Films of a request answered: decoded a few at a time, scored together with those of other requests, and drawn."""

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Semaphore
from typing import Any, NamedTuple

from pulmo.answering.admission import to_problem
from pulmo.answering.answer import Answer
from pulmo.answering.follow import Follower
from pulmo.answering.heatmap import decode_small, draw_heat, encode_png
from pulmo.answering.log import AnswerLog
from pulmo.answering.metrics import Metrics
from pulmo.answering.predictor import Predictor, read_fitted
from pulmo.answering.scorer import Scorer
from pulmo.answering.words import decision_text, worth_text
from pulmo.base.errors import UserError
from pulmo.base.process import usable_cores
from pulmo.images.film import FittedFilm
from pulmo.images.limits import MemoryShortage
from pulmo.package.inference import BATCH

SIDE = 1600  # pixels of the longest side of pictures that are sent
Problem = dict[str, Any]  # as RFC 9457 writes it


class Upload(NamedTuple):
    """A film as it was sent."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Wishes:
    """The parts of an answer that are given only where they are asked for."""

    anyway: bool = False  # label and probability of films that are refused
    film: bool = False  # the film, as base64 of a PNG
    heatmap: bool = False  # the film with its heat map, likewise
    dicom: bool = False  # a DICOM report and picture, likewise


class Service:
    """Answers the requests of a server; to be asked from many threads. It uses so many `cores` (0 = all)."""

    def __init__(self, source: Follower, log: AnswerLog | None = None, cores: int = 0) -> None:
        self.source = source
        self.metrics = Metrics(source)
        self._log = log
        cores = cores or usable_cores()
        self._scorer = Scorer(cores)
        self._turns = Semaphore(cores)  # more decoders at once get in each other's way, and take memory

    def answer(
        self, films: Sequence[Upload], wishes: Wishes, predictor: Predictor | None = None
    ) -> list[dict[str, Any]]:
        """For each film, in their order, a dictionary with its name and an `answer` or a `problem`.

        The predictor that serves now answers, unless another is given.
        """
        predictor, began = predictor or self.source.current(), time.perf_counter()
        parts = (films[start : start + BATCH] for start in range(0, len(films), BATCH))
        results = [result for part in parts for result in self._answer(predictor, part, wishes)]
        self.metrics.count(results, time.perf_counter() - began)
        return results

    def _answer(self, predictor: Predictor, films: Sequence[Upload], wishes: Wishes) -> Iterator[dict[str, Any]]:
        with self._turns:
            read = [_fit(predictor, film.content) for film in films]
        scores = iter(self._scorer.score(predictor, [item for item in read if isinstance(item, FittedFilm)]))
        for film, fitted in zip(films, read, strict=True):
            if not isinstance(fitted, FittedFilm):
                report = _report(predictor, film.content, None, None, fitted["detail"]) if wishes.dicom else {}
                yield {"film": film.name, "problem": fitted, **report}
                continue
            score = next(scores)
            answer = predictor.decide(fitted, score, wishes.anyway)
            if self._log:
                self._log.write(fitted, score, answer)
            words = {"decision": decision_text(answer), "worth": worth_text(answer), "answer": answer.to_dict()}
            try:
                with self._turns:
                    pictures = _draw(predictor, film.content, fitted, answer, wishes)
                    report = _report(predictor, film.content, fitted, answer) if wishes.dicom else {}
            except MemoryShortage as error:  # to draw it takes more than to score it
                yield {"film": film.name, "problem": to_problem(503, error.message)}
                continue
            yield {"film": film.name, **words, **pictures, **report}


def _fit(predictor: Predictor, content: bytes) -> FittedFilm | Problem:
    """A film as the network sees it, or the problem with it."""
    try:
        return read_fitted(content, predictor.info)
    except MemoryShortage as error:
        return to_problem(503, error.message)
    except UserError as error:
        return to_problem(422, error.message)


def _report(
    predictor: Predictor, content: bytes, fitted: FittedFilm | None, answer: Answer | None, problem: str = ""
) -> dict[str, str | None]:
    """A report and a picture in DICOM, or the reason why there are none, as for a film that is no DICOM."""
    from pulmo.answering.dicom.reply import make_reply  # highdicom, which belongs to another extra

    try:
        reply = make_reply(predictor, content, fitted, answer, problem)
    except UserError as error:
        return {"dicom_sr": None, "dicom_picture": None, "dicom_problem": error.message}
    return {"dicom_sr": _to_base64(reply.report), "dicom_picture": _to_base64(reply.picture)}


def _draw(
    predictor: Predictor, content: bytes, fitted: FittedFilm, answer: Answer, wishes: Wishes
) -> dict[str, str | None]:
    if not wishes.heatmap and not wishes.film:
        return {}
    gray = decode_small(content, SIDE)
    drawn: dict[str, str | None] = {}
    if wishes.film:
        drawn["film_png"] = _to_base64(encode_png(gray))
    if wishes.heatmap:
        coloured = draw_heat(predictor, fitted, gray, answer.label)
        drawn["heatmap_png"] = None if coloured is None else _to_base64(encode_png(coloured))
    return drawn


def _to_base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
