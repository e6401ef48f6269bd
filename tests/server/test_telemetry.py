"""Spans of the server: one trace from a client's request to the end of its task, and nothing secret in it."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest

from fluxwerk import Client
from fluxwerk.client.credentials import Credentials
from fluxwerk.server import telemetry
from fluxwerk.testing import loopback
from fluxwerk.types import HttpRequest
from support.asking import PRO

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the OpenTelemetry SDK is not installed")

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
KEY = {"x-key": "a-key-that-nobody-may-read"}
PROMPT = "a prompt that nobody may read"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64}


class Recorder(sdk.SpanProcessor):
    """Keeps spans while a test asks for them."""

    kept: list | None = None

    def on_end(self, span):
        if self.kept is not None:
            self.kept.append(span)


@pytest.fixture(scope="session")
def recorder():
    """One for the process, since OpenTelemetry takes no second provider."""
    recorder, provider = Recorder(), sdk.TracerProvider()
    provider.add_span_processor(recorder)
    trace.set_tracer_provider(provider)
    return recorder


@pytest.fixture
def spans(recorder):
    recorder.kept = kept = []
    yield lambda: list(kept)
    recorder.kept = None


def test_a_submit_continues_the_trace_of_its_client(spans):
    with loopback() as base:
        task = httpx2.post(base + PRO, json=SMALL, headers={**KEY, **PARENT}).json()
    (span,) = [span for span in spans() if span.name == "submit flux-2-pro"]
    assert f"{span.context.trace_id:032x}" == TRACE
    assert dict(span.attributes) == {
        "http.response.status_code": 200,
        "gen_ai.operation.name": "generate_image",
        "gen_ai.request.model": "flux-2-pro",
        "gen_ai.response.id": task["id"],
    }
    written = "".join(span.to_json() for span in spans())
    assert not [secret for secret in (PROMPT, KEY["x-key"]) if secret in written]


def test_a_malformed_trace_begins_a_new_one(spans):
    with loopback() as base:
        for parent in ("", "00-zz", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "0" * 5000):
            assert httpx2.post(base + PRO, json=SMALL, headers={**KEY, "traceparent": parent}).status_code == 200
    traces = {span.context.trace_id for span in spans() if span.name == "submit flux-2-pro"}
    assert len(traces) == 4
    assert 0 not in traces


def test_a_trace_that_nobody_took_up_is_taken_from_the_headers(spans):
    assert telemetry.incoming({**PARENT, "x-key": "a", "tracestate": "a" * 513}) == PARENT
    with telemetry.span("request", "server"):
        assert telemetry.incoming(PARENT) == {}


def test_an_exception_is_named_without_its_words(spans):
    with pytest.raises(ValueError, match="CANARY"), telemetry.span("work", "consumer"):
        raise ValueError("CANARY")
    (span,) = spans()
    assert (span.attributes["error.type"], span.status.status_code.name) == ("ValueError", "ERROR")
    assert "CANARY" not in span.to_json()


def test_what_is_present_is_what_another_process_continues(spans):
    with telemetry.span("submit", "server", PARENT):
        carried = telemetry.present()
    with telemetry.span("render", "consumer", carried):
        pass
    submit, render = spans()
    assert render.parent.span_id == submit.context.span_id
    assert f"{render.context.trace_id:032x}" == TRACE


def test_a_client_and_its_server_write_one_trace(spans):
    with loopback() as base, telemetry.span("order", "client"), Client("a-key", base_url=base) as client:
        client.generate("a fox", width=64, height=64)
        order = telemetry.present()["traceparent"].split("-")[1]
    (span,) = [span for span in spans() if span.name == "submit flux-2-pro"]
    assert f"{span.context.trace_id:032x}" == order


def test_a_trace_goes_with_a_submit_and_to_nobody_else(spans):
    credentials = Credentials("https://api.bfl.ai", "a-key")
    with telemetry.span("order", "client"):
        names = [
            "traceparent" in credentials.headers(HttpRequest(method, url, keyed=keyed))
            for method, url, keyed in (
                ("POST", "https://api.bfl.ai/v1/flux-2-pro", True),
                ("GET", "https://api.bfl.ai/v1/get_result?id=1", True),
                ("POST", "https://elsewhere.example/v1/flux-2-pro", True),
                ("GET", "https://delivery-eu1.bfl.ai/results/1", False),
            )
        ]
    assert names == [True, False, False, False]
    assert "traceparent" not in credentials.headers(HttpRequest("POST", "https://api.bfl.ai/v1/flux-2-pro", keyed=True))


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from fluxwerk.server import telemetry
with telemetry.span("submit", "server") as span:
    span.set(gen_ai__response__id="one")
    span.fail("ValueError")
print(telemetry.present())
"""


def test_without_opentelemetry_nothing_is_written():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
