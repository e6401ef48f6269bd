"""Spans of the server for OpenTelemetry, from a submit to the delivery of its image, over all processes.

A span continues the trace that a request, or the row of a task, names in the W3C's `traceparent`.  Without the extra
`otel` nothing is written, and without a configured SDK it costs next to nothing.  No span holds a prompt, a key or a
link.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from fluxwerk.server.requestlog import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# A client writes these headers, and what is longer is no trace context.
LONGEST_STATE = 512
INTERNAL_ERROR = 500
OPERATION = "generate_image"
HEADERS = ("traceparent", "tracestate")


@contextmanager
def span(name: str, kind: str, carried: Mapping[str, str] | None = None, **attributes: Any) -> Generator[ServerSpan]:
    """Write a span of a kind, `server`, `consumer` or `client`, in the trace that is carried, else in the present one.

    An exception that leaves the block is the span's error.
    """
    api = _api()
    if api is None:
        yield ServerSpan(None)
        return
    context = api.propagator.extract(dict(carried)) if carried else None
    kind_ = api.trace.SpanKind[kind.upper()]
    named = {name.replace("__", "."): value for name, value in attributes.items() if value is not None}
    with api.tracer.start_as_current_span(
        name, context=context, kind=kind_, attributes=named, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield ServerSpan(opened)
        except BaseException as error:
            ServerSpan(opened).fail(type(error).__name__)
            raise


def incoming(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace context that headers in lower case carry, unless the framework has taken it up already."""
    api = _api()
    if api is None or api.trace.get_current_span().get_span_context().is_valid:
        return {}
    return {name: headers[name] for name in HEADERS if name in headers and len(headers[name]) <= LONGEST_STATE}


def present() -> dict[str, str]:
    """Return the present trace context as headers, to be kept with a task or sent with a request."""
    carrier: dict[str, str] = {}
    api = _api()
    if api is not None:
        api.propagator.inject(carrier)
    return carrier


class ServerSpan:
    """A span that may be none."""

    def __init__(self, opened: Span | None) -> None:
        self._opened = opened

    def set(self, **attributes: Any) -> None:
        """Add attributes; two underscores stand for a dot."""
        if self._opened is not None:
            for name, value in attributes.items():
                self._opened.set_attribute(name.replace("__", "."), value)

    def close_request(self, status: int, record: RequestRecord) -> None:
        """Add what became of an HTTP request."""
        self.set(http__response__status_code=status)
        if record.model:
            self.set(gen_ai__operation__name=OPERATION, gen_ai__request__model=record.model)
        if record.task:
            self.set(gen_ai__response__id=record.task)
        if status >= INTERNAL_ERROR:
            self.fail(str(status))

    def fail(self, kind: str) -> None:
        """Say that what the span is about went wrong, by a word without details."""
        if self._opened is not None:
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

            self._opened.set_attribute("error.type", kind)
            self._opened.set_status(Status(StatusCode.ERROR, kind))


class _Api:
    """What is used of OpenTelemetry's API."""

    def __init__(self) -> None:
        from opentelemetry import trace  # noqa: PLC0415  (an extra)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self.trace = trace
        # It stands in for that of the SDK, which may be configured later.
        self.tracer = trace.get_tracer("fluxwerk.server")
        self.propagator = TraceContextTextMapPropagator()


@cache
def _api() -> _Api | None:
    try:
        return _Api()
    except ModuleNotFoundError:
        return None
