"""Spans: one for each image, with what a trace may know and nothing that it may not."""

import pytest

from fluxwerk import InsufficientCreditsError, ModerationError
from fluxwerk.client.telemetry import OPEN_SPANS, Spans
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace
from fluxwerk.types import Event, Response, Task

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the OpenTelemetry SDK is not installed")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

PROMPT = "a prompt that nobody else may read"


@pytest.fixture
def exporter():
    return memory.InMemorySpanExporter()


@pytest.fixture
def spans(exporter):
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return Spans(provider.get_tracer("test"))


def face(spans, **how):
    pair = FaceToFace(**how)
    pair.on_event = spans
    return pair


def test_an_image_is_one_span_with_model_task_and_cost(spans, exporter):
    image = face(spans, seconds=2.0).generate(PROMPT, width=64, height=64)

    (span,) = exporter.get_finished_spans()
    assert span.name == "generate_image flux-2-pro"
    assert span.attributes["gen_ai.request.model"] == "flux-2-pro"
    assert span.attributes["gen_ai.response.id"] == image.task.id
    assert span.attributes["http.request.resend_count"] == 0
    assert span.attributes["fluxwerk.cost"] == 3.0
    assert "polled" in {event.name for event in span.events}


def test_a_span_begins_when_the_session_began(spans, exporter):
    """A span begins when the conversation began and not when the service answered."""
    asked = Task("a", "")
    spans(Event("submitted", asked, 1, seconds=2.0))
    spans(Event("downloaded", asked, 1, seconds=2.5))
    (span,) = exporter.get_finished_spans()
    assert (span.end_time - span.start_time) / 1e9 >= 2.0


def test_no_prompt_key_or_signed_url_is_in_a_span(spans, exporter):
    pair = face(spans)
    pair.generate(PROMPT)
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert PROMPT not in text
    assert pair.access.key not in text
    assert "sig=" not in text


def test_a_bad_ending_is_an_error_with_its_type(spans, exporter):
    def moderate(request, response):
        if "get_result" in request.url:
            return Response(200, {}, b'{"id":"a","status":"Content Moderated"}')
        return response

    with pytest.raises(ModerationError):
        face(spans, intercept=moderate).generate(PROMPT)

    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "ModerationError"
    assert span.status.status_code.name == "ERROR"


def test_a_submit_that_is_refused_is_a_span_of_its_own(spans, exporter):
    with pytest.raises(InsufficientCreditsError):
        face(spans, accounts=Accounts(credit=0)).generate(PROMPT)

    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "InsufficientCreditsError"


def test_events_are_passed_on_to_whoever_else_listens(exporter):
    heard = []
    listening = Spans(sdk.TracerProvider().get_tracer("test"), then=heard.append)
    face(listening).generate(PROMPT)
    assert [event.kind for event in heard] == ["submitted", "polled", "ready", "downloaded"]


def test_tasks_that_are_never_collected_here_do_not_pile_up(spans, exporter):
    for number in range(OPEN_SPANS + 5):
        spans(Event("submitted", Task(str(number), ""), 1))
    assert len(exporter.get_finished_spans()) == 5


def test_a_retry_before_there_is_a_task_makes_no_span(spans, exporter):
    spans(Event("retrying", reason="busy"))
    assert exporter.get_finished_spans() == ()
