"""Counts and times of a server, as Prometheus reads them; nothing in them names a film or a person."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pulmo.answering.follow import PredictorSource

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one server."""

    def __init__(self, source: PredictorSource) -> None:
        self._source = source
        self._registry = CollectorRegistry()
        self._films = Counter("pulmo_films", "films by what became of them", ["outcome"], registry=self._registry)
        self._seconds = Histogram(
            "pulmo_predict_seconds", "from whole request to answer", registry=self._registry, buckets=_SECONDS
        )
        warning = Gauge(
            "pulmo_model_warning", "1 where the model is not the one that should serve", registry=self._registry
        )
        warning.set_function(lambda: float(bool(source.warning)))
        self._model = Gauge(
            "pulmo_model", "1 for the model that serves", ["name", "version", "sha256"], registry=self._registry
        )

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time that the block takes."""
        start = time.perf_counter()
        yield
        self._seconds.observe(time.perf_counter() - start)

    def count(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Count the results of a request."""
        for result in results:
            self._films.labels(_outcome(result)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        model = self._source.current().model
        self._model.clear()
        self._model.labels(model.name, model.version, model.sha256).set(1)
        return generate_latest(self._registry)


def _outcome(result: Mapping[str, Any]) -> str:
    if "problem" in result:
        return "problem"
    answer = result["answer"]
    if answer["not_a_chest_film"]:
        return "no_chest_film"
    if answer["unlike_training"]:
        return "unlike_training"
    return "unsure" if answer["unsure"] else str(answer["label"]).lower()
