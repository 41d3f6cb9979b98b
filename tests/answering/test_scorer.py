import threading
import time

import numpy as np
import pytest
from small_package import make_package

from pulmo import Predictor
from pulmo.answering.scorer import Scorer
from pulmo.images.film import FittedFilm


class Counted(Predictor):
    """A predictor that notes how many films it scores at a time, and waits before the first of them."""

    def score(self, films):
        if not self.sizes:
            self.begun.set()
            assert self.free.wait(20)
        self.sizes.append(len(films))
        if self.broken:
            raise MemoryError
        return super().score(films)


@pytest.fixture
def predictor(tmp_path) -> Counted:
    predictor = Counted.load(make_package(tmp_path / "package"))
    predictor.sizes, predictor.broken, predictor.begun, predictor.free = [], False, threading.Event(), threading.Event()
    return predictor


def draw(count: int) -> list[FittedFilm]:
    dice = np.random.default_rng(0)
    return [FittedFilm(dice.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(count)]


def ask_each(scorer: Scorer, predictor: Counted, films: list[FittedFilm]) -> list:
    """The results, or errors, of a thread a film; the first is being scored when the others come."""
    results: list = [None] * len(films)

    def ask(place: int) -> None:
        try:
            results[place] = scorer.score(predictor, [films[place]])[0]
        except MemoryError as error:
            results[place] = error

    threads = [threading.Thread(target=ask, args=[place]) for place in range(len(films))]
    threads[0].start()
    assert predictor.begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(scorer._waiting) < len(films) - 1:
        time.sleep(0.005)
    predictor.free.set()
    for thread in threads:
        thread.join()
    return results


def test_films_that_come_meanwhile_are_scored_together(predictor):
    films = draw(12)
    results = ask_each(Scorer(1), predictor, films)
    assert predictor.sizes == [1, 8, 3]
    alone = [Predictor.score(predictor, [film])[0].logit for film in films]
    assert [result.logit for result in results] == pytest.approx(alone, abs=1e-5)


def test_films_of_two_models_are_never_mixed(predictor, tmp_path):
    other = Predictor.load(make_package(tmp_path / "other"))
    scorer, films = Scorer(1), draw(2)
    found: list = []
    first = threading.Thread(target=lambda: found.append(scorer.score(predictor, films[:1])))
    second = threading.Thread(target=lambda: found.append(scorer.score(other, films[1:])))
    first.start()
    assert predictor.begun.wait(20)
    second.start()
    predictor.free.set()
    first.join()
    second.join()
    assert predictor.sizes == [1]
    assert [len(scores) for scores in found] == [1, 1]


def test_a_core_that_is_free_does_not_wait_for_the_others(predictor, tmp_path):
    other = Predictor.load(make_package(tmp_path / "other"))
    scorer, films, scores = Scorer(2), draw(2), []
    first = threading.Thread(target=lambda: scores.extend(scorer.score(predictor, films[:1])))
    first.start()
    assert predictor.begun.wait(20)
    assert len(scorer.score(other, films[1:])) == 1
    assert not scores
    predictor.free.set()
    first.join()
    assert len(scores) == 1


def test_a_failure_reaches_whoever_asked_and_the_next_are_answered(predictor):
    scorer, films = Scorer(1), draw(3)
    predictor.broken = True
    assert all(isinstance(result, MemoryError) for result in ask_each(scorer, predictor, films))
    predictor.broken = False
    assert len(scorer.score(predictor, films)) == 3
    assert scorer.score(predictor, []) == []
