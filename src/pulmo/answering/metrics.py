"""Counts and times of a server, as Prometheus reads them; nothing in them names a film or a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from pulmo.answering.follow import Follower

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one server."""

    def __init__(self, source: Follower) -> None:
        self._source = source
        self._registry = CollectorRegistry()
        self._films = Counter("pulmo_films", "films by what became of them", ["outcome"], registry=self._registry)
        self._seconds = Histogram(
            "pulmo_predict_seconds", "from whole request to answer", registry=self._registry, buckets=_SECONDS
        )
        self._registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, read anew for each text; the registry calls this."""
        about, model = "1 where the model is not the one that should serve", self._source.current().model
        yield GaugeMetricFamily("pulmo_model_warning", about, bool(self._source.warning))
        serving = GaugeMetricFamily("pulmo_model", "1 for the model that serves", labels=["name", "version", "sha256"])
        serving.add_metric([model.name, model.version, model.sha256], 1)
        yield serving

    def count(self, results: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """Count the results of a request, and the time that it took."""
        self._seconds.observe(seconds)
        for result in results:
            self._films.labels(_outcome(result)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
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
