"""An extension: counts for Prometheus; nothing in them says who asked for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Response

PREFIX = "fluxwerk_"


def metrics(state: ServerState, _: ServerRequest) -> Response:
    """Write everything that is counted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(state))
    return Response(200, {"content-type": CONTENT_TYPE_PLAIN_0_0_4}, generate_latest(registry))


class StateCollector(Collector):
    """Reads the counts of one server's state."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its values of this moment."""
        counts, now = self._state.metrics, self._state.clock()
        kept = self._state.tasks.count(now)
        tasks = GaugeMetricFamily(PREFIX + "tasks", "tasks that are kept, by status", labels=["status"])
        for status, number in sorted(kept.items()):
            tasks.add_metric([status], number)
        yield tasks
        yield _counter("accepted", "submits that were accepted, by model", "model", counts.accepted)
        yield _counter("refused", "answers above 399, by HTTP status", "status", counts.refused)
        yield _counter("ended", "tasks that ended, by status", "status", counts.ended)
        yield _counter("webhooks", "webhooks, delivered or dropped", "state", counts.webhooks)
        yield GaugeMetricFamily(PREFIX + "in_flight", "tasks that hold a slot", value=kept["Pending"])
        render = HistogramMetricFamily(PREFIX + "render_seconds", "how long the engine took for an image")
        render.add_metric([], counts.buckets(), counts.seconds)
        yield render


def _counter(name: str, words: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=[label])
    for value, number in sorted(counts.items()):
        family.add_metric([value], number)
    return family
