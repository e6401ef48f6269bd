"""An extension: counts for Prometheus; nothing in them says what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fluxwerk.engines import Abilities
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.figures import POOLS, Figures
from fluxwerk.server.state.metrics import PARTS, Metrics
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Response

if TYPE_CHECKING:
    from fluxwerk.engines.upstream.engine import UpstreamEngine

PREFIX = "fluxwerk_"
WORDS = {
    "submit": "how long submits took to answer, by model",
    "wait": "how long tasks waited for an engine, by model",
    "render": "how long the engine took for an image, by model",
    "deliver": "how long an image waited for its first download, by model",
}


def metrics(state: ServerState, _: ServerRequest) -> Response:
    """Write everything that is counted."""
    headers = {"content-type": CONTENT_TYPE_PLAIN_0_0_4}
    return Response(200, headers, generate_latest(registry_of(state)))


def registry_of(state: ServerState) -> CollectorRegistry:
    """Return what a server of metrics reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(state))
    return registry


class StateCollector(Collector):
    """Reads the counts of one process, and the figures of the state that it shares with others."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its values of this moment."""
        yield from _counted(self._state.metrics)
        engine = _upstream(self._state.abilities)
        errors = engine.errors if engine else Counter[str]()
        yield _counter("upstream_errors", "errors of the service behind, by kind", "kind", errors)
        figures, now = Figures(self._state.store.database), self._state.clock()
        yield from _shared(figures, now)
        yield from _upstream_slots(figures.upstream_slots_used(now), {engine.account} if engine else set())


def _counted(counts: Metrics) -> Iterator[Metric]:
    """Yield what this process counted."""
    yield _counter("accepted", "submits that were accepted, by model", "model", counts.accepted)
    yield _counter("refused", "answers above 399, by HTTP status", "status", counts.refused)
    yield _counter("ended", "tasks that ended, by status", "status", counts.ended)
    yield _counter("webhooks", "webhooks, delivered or dropped", "state", counts.webhooks)
    for part in PARTS:
        family = HistogramMetricFamily(f"{PREFIX}{part}_seconds", WORDS[part], labels=["model"])
        for model, durations in sorted(counts.seconds[part].items()):
            family.add_metric([model], durations.buckets(), durations.sum)
        yield family


def _upstream(abilities: Abilities) -> UpstreamEngine | None:
    from fluxwerk.engines.upstream.engine import UpstreamEngine  # noqa: PLC0415  (a client, which few servers need)

    return abilities if isinstance(abilities, UpstreamEngine) else None


def _upstream_slots(used: Mapping[tuple[str, str], int], own: set[str]) -> Iterator[Metric]:
    """Yield the slots of each account at the service that holds some, and of this process's own."""
    accounts = sorted(own | {account for account, _ in used})
    limits = {(account, pool): slots for account in accounts for pool, slots in POOLS.items()}
    held = {pair: used.get(pair, 0) for pair in limits}
    labels = ("account", "pool")
    yield _gauge("upstream_slots_used", "slots that are held at the service behind, by account and pool", labels, held)
    yield _gauge("upstream_slots_limit", "slots of an account at the service behind, by pool", labels, limits)


def _shared(figures: Figures, now: float) -> Iterator[Metric]:
    """Yield what the rows say, which is the same at every process of a state."""
    yield _gauge("tasks", "tasks that are kept, by status", ("status",), figures.by_status(now))
    depth = "tasks that no engine has taken up, by model and stage"
    yield _gauge("queue_depth", depth, ("model", "stage"), figures.queue())
    yield _gauge("slots_used", "slots that tasks hold, by key and pool", ("key", "pool"), figures.slots_used(now))
    yield _gauge("slots_free", "slots that are left, by key and pool", ("key", "pool"), figures.slots_free(now))
    yield _gauge("spend_credits", "credits that were spent, by key and model", ("key", "model"), figures.spend())
    yield GaugeMetricFamily(
        PREFIX + "in_doubt", "tasks that may have been paid at the service behind", figures.in_doubt()
    )
    yield GaugeMetricFamily(PREFIX + "webhook_lag_seconds", "age of the oldest webhook due", figures.webhook_lag(now))
    beats = "time since each process last said that it works"
    yield _gauge("worker_heartbeat_age_seconds", beats, ("process", "kind"), figures.heartbeats(now))


def _counter(name: str, words: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, words, labels=[label])
    for value, number in sorted(counts.items()):
        family.add_metric([value], number)
    return family


def _gauge(
    name: str, words: str, labels: tuple[str, ...], values: Mapping[str, int] | Mapping[tuple[str, str], float]
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, words, labels=labels)
    for value, number in values.items():
        family.add_metric([value] if isinstance(value, str) else value, number)
    return family
