"""Webhooks out, on a pretend clock: what is sent when, what is signed, and what a task tells about it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.errors import NoResponseError
from fluxwerk.protocol import webhook
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.outgoing import PAUSES, OutgoingWebhook
from fluxwerk.server.state.webhooks import WebhookPolicy
from fluxwerk.types import HttpRequest, Response
from support.asking import ask, face, fault, json_of, kept, post

HOOK = "https://me.example/hook?token=CANARY"


class Receiver:
    """Takes webhooks and answers each with the next of its answers, the last of them for ever."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers) or [204]
        self.got: list[HttpRequest] = []
        self.times: list[float] = []
        self.clock = None

    def __call__(self, request: HttpRequest) -> Response:
        self.got.append(request)
        self.times.append(self.clock.now())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Response(answer)


def told(receiver: Receiver, prompt: str = "x", secret: str | None = "s3cret", **how):
    of = face(receiver=receiver, **how)
    receiver.clock = of.clock
    began = of.clock.now()
    identity = json_of(post(of, {"prompt": prompt, "webhook_url": HOOK, "webhook_secret": secret}))["id"]
    of.deliver_webhooks()
    receiver.times = [time - began for time in receiver.times]
    return of, json_of(ask(of, "GET", f"/v1/tasks/{identity}"))


def test_a_ready_task_is_told_once_in_the_guides_words_with_both_ids():
    receiver = Receiver()
    of, row = told(receiver, "a fox", seconds=5)
    (request,) = receiver.got
    body = json.loads(request.body)
    assert receiver.times == [5]
    assert (request.method, request.url) == ("POST", HOOK)
    assert body["id"] == body["task_id"] == row["id"]
    assert (body["status"], body["result"]["prompt"], body["cost"]) == ("Ready", "a fox", 3)
    assert body["timestamp"] == datetime.fromtimestamp(of.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ask(of, "GET", body["result"]["sample"], key=None).status == 200


def test_the_signature_is_the_hmac_of_exactly_the_bytes_that_were_sent():
    receiver = Receiver()
    told(receiver, "ä \N{FOX FACE}")
    (request,) = receiver.got
    assert request.headers["x-bfl-signature"] == webhook.sign(request.body, "s3cret")
    assert request.headers["x-bfl-signature"] != webhook.sign(request.body, "other")
    assert request.headers["content-type"] == "application/json"


def test_the_secret_itself_is_sent_only_where_the_operator_wants_it():
    plain, open_ = Receiver(), Receiver()
    told(plain)
    told(open_, policy=WebhookPolicy(tell_secret=True))
    assert "x-webhook-secret" not in plain.got[0].headers
    assert open_.got[0].headers["x-webhook-secret"] == "s3cret"


@pytest.mark.parametrize("secret", [None, ""])
def test_without_a_secret_nothing_is_signed(secret):
    receiver = Receiver()
    told(receiver, secret=secret, policy=WebhookPolicy(tell_secret=True))
    assert not {"x-bfl-signature", "x-webhook-secret"} & set(receiver.got[0].headers)


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("fluxwerk:error", "Error", "internal_error"),
        ("fluxwerk:content-moderated", "Content Moderated", "content_policy_violation"),
        ("fluxwerk:request-moderated", "Request Moderated", "content_policy_violation"),
    ],
)
def test_a_task_without_an_image_is_told_with_its_error(prompt, status, error):
    receiver = Receiver()
    told(receiver, prompt)
    body = json.loads(receiver.got[0].body)
    assert (body["status"], body["error"]) == (status, error)
    assert body["message"]
    assert "result" not in body


def test_a_failure_of_the_engine_is_told_too():
    class Broken:
        name = "broken"

        def render(self, _):
            raise RuntimeError("no paint left")

    receiver = Receiver()
    told(receiver, engine=Broken())
    assert json.loads(receiver.got[0].body)["error"] == "RuntimeError: no paint left"


@pytest.mark.parametrize("bad", [500, 404, 301, 199, NoResponseError("it did not answer in time")])
def test_a_webhook_is_retried_after_1_5_and_30_seconds(bad):
    """What is not acknowledged is sent again after 1 5 and 30 seconds and then dropped."""
    receiver = Receiver(bad)
    _, row = told(receiver)
    assert receiver.times == [0, 1, 6, 36]
    assert len({request.body for request in receiver.got}) == 1
    assert row["webhook"]["state"] == "dropped"
    assert [attempt["number"] for attempt in row["webhook"]["attempts"]] == [1, 2, 3, 4]


def test_an_acknowledgement_ends_it():
    receiver = Receiver(500, NoResponseError("it could not be reached"), 202)
    _, row = told(receiver)
    assert receiver.times == [0, 1, 6]
    assert row["webhook"]["state"] == "delivered"
    outcomes = [attempt["outcome"] for attempt in row["webhook"]["attempts"]]
    assert outcomes == ["answered 500", "it could not be reached", "answered 202"]


def test_the_task_lists_webhook_attempts_without_the_query():
    """The task tells order and moments of its attempts and hides the urls query."""
    receiver = Receiver(500, 204)
    _, row = told(receiver)
    moments = [attempt["at"] for attempt in row["webhook"]["attempts"]]
    assert moments[1] - moments[0] == 1
    assert row["webhook"]["url"] == "https://me.example/hook?…"
    assert "CANARY" not in json.dumps(row)


def test_a_task_whose_webhook_is_not_due_says_so():
    of = face(seconds=60)
    identity = json_of(post(of, {"prompt": "x", "webhook_url": HOOK}))["id"]
    row = json_of(ask(of, "GET", f"/v1/tasks/{identity}"))
    assert row["webhook"] == {"url": "https://me.example/hook?…", "state": "waiting", "attempts": []}


def test_a_cancelled_task_is_told_as_cancelled_and_only_once():
    receiver = Receiver()
    of = face(seconds=60, receiver=receiver)
    receiver.clock = of.clock
    identity = json_of(post(of, {"prompt": "x", "webhook_url": HOOK}))["id"]
    ask(of, "DELETE", f"/v1/tasks/{identity}")
    of.deliver_webhooks()
    assert [json.loads(request.body)["error"] for request in receiver.got] == ["cancelled"]


def test_several_webhooks_arrive_in_the_order_of_their_moments():
    receiver = Receiver()
    seconds = iter([30.0, 10.0, 20.0])
    of = face(seconds=lambda _: next(seconds), receiver=receiver)
    receiver.clock = of.clock
    for prompt in "abc":
        post(of, {"prompt": prompt, "webhook_url": HOOK})
    of.deliver_webhooks()
    assert [json.loads(request.body)["result"]["prompt"] for request in receiver.got] == ["b", "c", "a"]


def test_webhooks_arrive_while_a_client_polls():
    receiver = Receiver()
    of = face(seconds=5, receiver=receiver)
    receiver.clock = of.clock
    of.wait(of.submit("x", webhook_url=HOOK))
    of.credits()
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("deed", "sent"),
    [({"do": "drop"}, []), ({"do": "delay", "seconds": 9}, [9]), ({"do": "duplicate"}, [0, 0])],
)
def test_trouble_drops_delays_or_doubles_a_webhook(deed, sent):
    receiver = Receiver()
    told(receiver, trouble=[FaultRule(on="webhook", **deed)])
    assert receiver.times == sent


def test_trouble_forges_or_garbles_a_webhook():
    forged, garbled = Receiver(), Receiver()
    told(forged, trouble=[FaultRule(on="webhook", do="forge")])
    told(garbled, trouble=[FaultRule(on="webhook", do="garble")])
    request = forged.got[0]
    assert request.headers["x-bfl-signature"] != webhook.sign(request.body, "s3cret")
    with pytest.raises(json.JSONDecodeError):
        json.loads(garbled.got[0].body)


def test_a_dropped_webhook_is_said_by_its_task():
    _, row = told(Receiver(), trouble=[FaultRule(on="webhook", do="drop")])
    assert row["webhook"]["state"] == "dropped"


@pytest.mark.parametrize(
    ("url", "policy", "may"),
    [
        ("https://me.example/", WebhookPolicy(), True),
        ("https://10.0.0.1/", WebhookPolicy(), True),  # the guard refuses its address when it is connected to
        ("http://me.example/", WebhookPolicy(), False),
        ("http://me.example/", WebhookPolicy(hosts=frozenset({"me.example"})), True),
        ("http://you.example/", WebhookPolicy(hosts=frozenset({"me.example"})), False),
        ("http://127.0.0.1:9/", WebhookPolicy(), False),
        ("http://127.0.0.1:9/", WebhookPolicy(networks=("127.0.0.0/8",)), True),
        ("http://127.0.0.1:9/", WebhookPolicy(networks=("::1/128",)), False),
        ("http://[::1]:9/", WebhookPolicy(networks=("::1/128",)), True),
        ("http://10.0.0.1/", WebhookPolicy(networks=("127.0.0.0/8",)), False),
        (
            "http://localhost:9/",
            WebhookPolicy(networks=("127.0.0.0/8",)),
            True,
        ),  # the guard judges what the name leads to
        ("http://", WebhookPolicy(networks=("127.0.0.0/8",)), False),
        ("https://", WebhookPolicy(), False),
        ("https://[half/", WebhookPolicy(), False),
        ("https://user:word@me.example/", WebhookPolicy(), False),
        ("https://me.example:0/", WebhookPolicy(), False),
        ("https://me.example:99999/", WebhookPolicy(), False),
        ("https://me.example/a b", WebhookPolicy(), False),
        ("https://me.example/\r\nx: y", WebhookPolicy(), False),
        ("https://me.example\\@you.example/", WebhookPolicy(), False),
        ("https://mé.example/", WebhookPolicy(), False),
    ],
)
def test_plain_http_goes_only_where_the_operator_allows(url, policy, may):
    assert (policy.fault(url) is None) == may
    of = face(policy=policy)
    answer = post(of, {"prompt": "x", "webhook_url": url})
    assert answer.status == (200 if may else 422)
    if not may:
        assert fault(answer)[1] == ["body", "webhook_url"]
        assert kept(of.state) == {}


@given(st.lists(st.sampled_from([200, 204, 301, 404, 500]), min_size=1, max_size=6))
def test_a_notice_is_tried_until_it_is_acknowledged_and_at_most_four_times(answers):
    receiver = Receiver(*answers)
    _, row = told(receiver)
    good = next((n for n, answer in enumerate([*answers, *[answers[-1]] * 4]) if answer < 300), 99)
    assert len(receiver.got) == min(good + 1, len(PAUSES) + 1)
    assert row["webhook"]["state"] == ("delivered" if good < 4 else "dropped")


def test_a_notice_that_was_tried_goes_on_where_it_stood():
    notice = OutgoingWebhook(HOOK)
    notice.note("answered 500", 100.0, acknowledged=False)
    assert [notice.pause(now) for now in (100.0, 100.4, 500.0)] == [1.0, pytest.approx(0.6), 0.0]


def test_a_notice_and_its_policy_show_neither_url_nor_secret():
    assert "CANARY" not in repr(OutgoingWebhook(HOOK, "CANARY"))


def test_metrics_count_webhooks_by_what_became_of_them():
    of, _ = told(Receiver(500))
    assert 'fluxwerk_webhooks_total{state="dropped"} 1' in ask(of, "GET", "/metrics").body.decode()


@pytest.mark.parametrize("secret", ["pässwort", "a\nb", "\x7f"])
def test_a_webhook_secret_that_no_header_takes_is_refused(secret):
    of = face()
    answer = post(of, {"prompt": "x", "webhook_url": "https://a.test/hook", "webhook_secret": secret})
    assert fault(answer)[:2] == (422, ["body", "webhook_secret"])
