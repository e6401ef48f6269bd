"""An extension: counts for Prometheus, in its text format, with nothing in them about who asked for what."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fluxwerk.server.request import ServerRequest
from fluxwerk.types import Response

if TYPE_CHECKING:
    from fluxwerk.server.router import Service

TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
# Seconds; a klein on a good card takes less than half a second, a dev on an old one a minute.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PREFIX = "fluxwerk_"


class Metrics:
    """What has happened since the server started."""

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter()
        self.seconds = 0.0
        self.renders = 0
        self._buckets: Counter[float] = Counter()

    def render(self, seconds: float) -> None:
        """Count an image and how long the engine took for it."""
        self.renders += 1
        self.seconds += seconds
        for bound in BOUNDS:
            self._buckets[bound] += seconds <= bound

    def buckets(self) -> list[tuple[str, int]]:
        """How many images took at most so many seconds."""
        return [*((f"{bound:g}", self._buckets[bound]) for bound in BOUNDS), ("+Inf", self.renders)]


def metrics(service: Service, _: ServerRequest) -> Response:
    """Write everything that is counted."""
    meter, now = service.meter, service.clock()
    standing = Counter(job.word if job.has_ended(now) else "Pending" for job in service.books.jobs.values())
    lines = [
        *_family("tasks", "gauge", "tasks that are kept, by status", "status", standing),
        *_family("accepted_total", "counter", "submits that were accepted, by model", "model", meter.accepted),
        *_family("refused_total", "counter", "answers above 399, by HTTP status", "status", meter.refused),
        *_family("ended_total", "counter", "tasks that ended, by status", "status", meter.ended),
        *_family("webhooks_total", "counter", "webhooks, by what became of them", "state", meter.webhooks),
        *_single("in_flight", "tasks that hold a slot", standing["Pending"]),
        *_histogram(meter),
    ]
    return Response(200, TEXT, ("\n".join(lines) + "\n").encode())


def _family(name: str, kind: str, words: str, label: str, counts: Counter[str]) -> list[str]:
    rows = [f'{PREFIX}{name}{{{label}="{value}"}} {count}' for value, count in sorted(counts.items())]
    return [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} {kind}", *rows]


def _single(name: str, words: str, count: int) -> list[str]:
    return [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} gauge", f"{PREFIX}{name} {count}"]


def _histogram(meter: Metrics) -> list[str]:
    name = f"{PREFIX}render_seconds"
    rows = [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in meter.buckets()]
    sums = [f"{name}_sum {meter.seconds:g}", f"{name}_count {meter.renders}"]
    return [f"# HELP {name} how long the engine took for an image", f"# TYPE {name} histogram", *rows, *sums]
