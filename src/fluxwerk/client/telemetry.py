"""OpenTelemetry from the client's events: one span for each image, from the submit to the last byte.

Needs the extra `otel`.  Prompts stay out of spans, and so do keys and delivery URLs: no event holds a key, and only the
named attributes are written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fluxwerk.bounded import BoundedDict
from fluxwerk.types import Event, OnEvent, ignore_event

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

# Tasks may be submitted here and collected elsewhere: beyond this number the oldest spans end without their image.
OPEN_SPANS = 10_000
OPERATION = "generate_image"
PROVIDER = "black_forest_labs"
NANO = 1_000_000_000


class Spans:
    """An `on_event` that writes spans: `Client(on_event=Spans())`; `then` is called with every event as well.

    Attributes follow the semantic conventions where there is one (`gen_ai.*`, `http.request.resend_count`,
    `error.type`); `fluxwerk.cost` is in credits.
    """

    def __init__(self, tracer: Tracer | None = None, then: OnEvent = ignore_event) -> None:
        from opentelemetry import trace  # noqa: PLC0415  (an extra)

        self._tracer = tracer or trace.get_tracer("fluxwerk")
        self._then = then
        self._open: BoundedDict[str, Span] = BoundedDict(OPEN_SPANS)

    def __call__(self, event: Event) -> None:
        """Take one event of a client."""
        self._note(event)
        self._then(event)

    def _note(self, event: Event) -> None:
        span = self._span(event)
        if span is None:
            return
        if event.kind == "submitted":
            span.set_attribute("http.request.resend_count", event.attempt - 1)
        if event.kind in ("polled", "retrying"):
            word = event.status.word if event.status else ""
            span.add_event(event.kind, {"attempt": event.attempt, "status": word})
        if event.status and event.status.cost is not None:
            span.set_attribute("fluxwerk.cost", float(event.status.cost))
        if event.kind == "failed":
            self._fail(span, event)
        if event.kind in ("downloaded", "failed"):
            if event.task:
                self._open.pop(event.task.id, None)
            span.end()

    def _span(self, event: Event) -> Span | None:
        if event.task is None:
            # A submit that is tried again has no task yet; one that failed for good gets its span now.
            return self._start(event) if event.kind == "failed" else None
        span = self._open.get(event.task.id)
        if span is None:
            span = self._start(event)
            dropped = self._open.put(event.task.id, span)
            if dropped is not None:
                dropped.end()
        return span

    def _start(self, event: Event) -> Span:
        began = time.time_ns() - int(event.seconds * NANO)
        span = self._tracer.start_span(
            f"{OPERATION} {event.task.model if event.task else ''}".strip(), start_time=began
        )
        span.set_attribute("gen_ai.operation.name", OPERATION)
        span.set_attribute("gen_ai.provider.name", PROVIDER)
        if event.task:
            span.set_attribute("gen_ai.request.model", event.task.model)
            span.set_attribute("gen_ai.response.id", event.task.id)
        return span

    def _fail(self, span: Span, event: Event) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        kind = event.reason.partition(":")[0]
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, kind))
