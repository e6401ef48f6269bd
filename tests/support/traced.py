"""fluxwerk as a process whose spans go to a file: `python -m support.traced FILE serve …`."""

from __future__ import annotations

import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from fluxwerk.cli import main


def trace_to(path: str) -> None:
    """Append every span to a file, one JSON object a line."""
    out = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115  (as long as the process)
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


if __name__ == "__main__":
    trace_to(sys.argv[1])
    sys.argv = ["fluxwerk", *sys.argv[2:]]
    main()
