"""Films of many requests scored together: those that wait when a core is free are its next batch."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import NamedTuple

from pulmo.answering.predictor import Predictor, Score
from pulmo.images.film import FittedFilm
from pulmo.package.inference import BATCH


class _Job(NamedTuple):
    predictor: Predictor
    film: FittedFilm
    score: Future[Score]


class Scorer:
    """A few threads that score, for any number of threads that ask. Nobody waits for a batch to fill."""

    def __init__(self, threads: int) -> None:
        self._waiting: deque[_Job] = deque()
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(threads, "score")

    def score(self, predictor: Predictor, films: Sequence[FittedFilm]) -> list[Score]:
        """The scores of films, in their order, once they are there; memory is bounded by the threads that ask."""
        jobs = [_Job(predictor, film, Future()) for film in films]
        self._waiting.extend(jobs)
        self._threads.submit(self._score_waiting)
        return [job.score.result() for job in jobs]

    def _score_waiting(self) -> None:
        while batch := self._take():
            for _, group in groupby(batch, lambda job: id(job.predictor)):  # the model may move between two requests
                _score(list(group))

    def _take(self) -> list[_Job]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]


def _score(jobs: Sequence[_Job]) -> None:
    try:
        scores = jobs[0].predictor.score([job.film for job in jobs])
    except BaseException as error:  # raised where the film was asked about
        for job in jobs:
            job.score.set_exception(error)
        return
    for job, score in zip(jobs, scores, strict=True):
        job.score.set_result(score)
