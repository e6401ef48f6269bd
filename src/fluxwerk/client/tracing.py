"""The trace of OpenTelemetry that a submit belongs to, for the server to continue."""

from __future__ import annotations

import sys


def trace_headers() -> dict[str, str]:
    """Return the W3C headers of the span that is current; none in a program that does not use OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier
