"""Webhooks as values: what proves them, and what they say."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import InvalidSignatureError, InvalidUsageError, InvalidWebhookError, Outcome, Task
from fluxwerk.protocol.webhook import LARGEST_WEBHOOK
from fluxwerk.webhook import SIGNATURE, read, sign, verify

KEY = "CANARY-webhook-secret"
READY = {
    "id": "7c1f",
    "status": "Ready",
    "result": {"sample": "https://delivery-eu1.bfl.ai/x?sig=CANARYsig", "prompt": "a fox", "seed": 7},
    "timestamp": "2026-01-01T00:00:00Z",
}
# The two shapes that receivers have seen, for a good and for a bad ending.
SUCCESS = {"task_id": "7c1f", "status": "SUCCESS", "result": READY["result"], "progress": 1.0, "error": None}
ERROR = {"id": "7c1f", "status": "Error", "error": "generation_timeout", "message": "it took too long"}
FAILED = {"task_id": "7c1f", "status": "FAILED", "result": None, "error": "generation_timeout"}

bodies = st.binary(max_size=200)
secrets = st.text(min_size=1, max_size=40)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
names = st.sampled_from(["id", "task_id", "status", "result", "progress", "details", "error", "message", "cost"])


def raw(body: object) -> bytes:
    return json.dumps(body).encode()


def test_the_signature_is_the_one_of_the_guide():
    body = b'{"id":"7c1f"}'
    assert sign(body, "s") == "sha256=" + hmac.new(b"s", body, hashlib.sha256).hexdigest()


def proves(body, headers, secret):
    try:
        verify(body, headers, secret)
    except InvalidSignatureError:
        return False
    return True


@given(bodies, secrets)
def test_what_was_signed_is_proven(body, secret):
    assert proves(body, {SIGNATURE: sign(body, secret)}, secret)


@given(bodies, secrets, secrets)
def test_another_secret_proves_nothing(body, secret, other):
    if secret != other:
        with pytest.raises(InvalidSignatureError):
            verify(body, {SIGNATURE: sign(body, other)}, secret)


@given(st.data(), st.binary(min_size=1, max_size=200), secrets)
def test_any_changed_byte_of_the_body_is_refused(data, body, secret):
    place = data.draw(st.integers(0, len(body) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytes([*body[:place], body[place] ^ change, *body[place + 1 :]])
    with pytest.raises(InvalidSignatureError, match="does not match its body"):
        verify(changed, {SIGNATURE: sign(body, secret)}, secret)


def test_no_byte_of_a_whole_webhook_is_left_out_of_its_signature():
    body = raw(READY)
    for place in range(len(body)):
        changed = bytes([*body[:place], body[place] ^ 1, *body[place + 1 :]])
        with pytest.raises(InvalidSignatureError):
            verify(changed, {SIGNATURE: sign(body, KEY)}, KEY)


@given(bodies, secrets, st.binary(min_size=1, max_size=5))
def test_a_longer_or_shorter_body_is_refused(body, secret, more):
    for other in (body + more, more + body):
        with pytest.raises(InvalidSignatureError):
            verify(other, {SIGNATURE: sign(body, secret)}, secret)


@given(st.data(), bodies, secrets)
def test_any_changed_character_of_the_signature_is_refused(data, body, secret):
    good = sign(body, secret)
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters().filter(lambda one: one != good[place] and not one.isspace()))
    with pytest.raises(InvalidSignatureError):
        verify(body, {SIGNATURE: good[:place] + other + good[place + 1 :]}, secret)


@given(bodies, secrets, st.integers(0, 70))
def test_a_cut_off_signature_is_refused(body, secret, length):
    with pytest.raises(InvalidSignatureError):
        verify(body, {SIGNATURE: sign(body, secret)[:length]}, secret)


@pytest.mark.parametrize("name", ["X-BFL-Signature", "x-bfl-signature", "X-Bfl-Signature"])
def test_the_header_is_found_however_a_framework_writes_it(name):
    assert proves(b"{}", {"content-type": "application/json", name: f" {sign(b'{}', KEY)} "}, KEY)


def test_a_webhook_without_a_signature_is_refused_and_says_what_is_missing():
    with pytest.raises(InvalidSignatureError, match="no X-BFL-Signature: anyone may have sent it") as refused:
        verify(b"{}", {}, KEY)
    assert "webhook_secret" in str(refused.value)


def test_another_scheme_is_named_as_such():
    with pytest.raises(InvalidSignatureError, match="does not begin with 'sha256='"):
        verify(b"{}", {SIGNATURE: "sha1=00"}, KEY)


def test_the_secret_itself_is_a_proof_only_where_that_was_chosen():
    with pytest.raises(InvalidSignatureError, match="accept_secret_header=True"):
        verify(b"{}", {"X-Webhook-Secret": KEY}, KEY)
    verify(b"{}", {"x-webhook-secret": KEY}, KEY, accept_secret_header=True)
    with pytest.raises(InvalidSignatureError, match="is not the secret"):
        verify(b"{}", {"x-webhook-secret": KEY[:-1]}, KEY, accept_secret_header=True)
    with pytest.raises(InvalidSignatureError, match="no X-BFL-Signature and no X-Webhook-Secret"):
        verify(b"{}", {}, KEY, accept_secret_header=True)


def test_a_wrong_signature_is_not_made_good_by_the_secret_beside_it():
    with pytest.raises(InvalidSignatureError):
        verify(b"{}", {SIGNATURE: sign(b"other", KEY), "x-webhook-secret": KEY}, KEY, accept_secret_header=True)


def test_an_empty_secret_is_a_mistake_and_not_an_open_door():
    for headers in ({SIGNATURE: sign(b"{}", "")}, {"x-webhook-secret": ""}, {}):
        with pytest.raises(InvalidUsageError, match="secret is empty"):
            verify(b"{}", headers, "", accept_secret_header=True)


@given(bodies, st.text(max_size=90))
def test_no_refusal_repeats_the_secret_or_the_right_signature(body, given_signature):
    for headers in ({SIGNATURE: given_signature}, {"x-webhook-secret": given_signature}, {}):
        for accept in (False, True):
            with pytest.raises(InvalidSignatureError) as refused:
                verify(body, headers, KEY, accept_secret_header=accept)
            assert KEY not in f"{refused.value!r} {refused.value.__dict__}"
            assert sign(body, KEY) not in str(refused.value)


@pytest.mark.parametrize("body", [READY, SUCCESS], ids=["guide", "seen"])
def test_both_shapes_of_a_good_ending_come_out_the_same(body):
    status = read(raw(body))
    assert (status.task.id, status.word, status.outcome) == ("7c1f", "Ready", Outcome.READY)
    assert status.url == READY["result"]["sample"]
    assert status.seed == 7


@pytest.mark.parametrize("body", [ERROR, FAILED], ids=["guide", "seen"])
def test_both_shapes_of_a_bad_ending_come_out_as_failed(body):
    status = read(raw(body))
    assert (status.task.id, status.outcome) == ("7c1f", Outcome.FAILED)
    assert "generation_timeout" in status.details


def test_moderation_keeps_its_reasons():
    details = {"Moderation Reasons": ["Violence"]}
    status = read(raw({"id": "7c1f", "status": "Request Moderated", "details": details}))
    assert (status.outcome, status.details) == (Outcome.MODERATED, details)


def test_a_ready_webhook_without_an_image_leads_to_a_poll():
    """A webhook that is ready and names no image is still worth asking about."""
    assert read(raw({"id": "7c1f", "status": "Ready"})).outcome is Outcome.READY


def test_a_webhook_is_not_believed_about_where_to_ask():
    told = {**READY, "polling_url": "https://evil.example/v1/get_result?id=7c1f"}
    assert read(raw(told)).task.polling_url == ""
    known = Task("7c1f", "https://api.eu2.bfl.ai/v1/get_result?id=7c1f")
    assert read(raw(told), known).task is known


def test_a_webhook_about_another_task_is_refused():
    with pytest.raises(InvalidWebhookError, match="is about the task 7c1f, not about 8888") as refused:
        read(raw(READY), Task("8888", "https://api.bfl.ai/v1/get_result?id=8888"))
    assert refused.value.task.id == "8888"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "names no task"),
        (b'{"id": 7, "status": "Ready"}', "is not an id"),
        (b'{"id": "", "status": "Ready"}', "is not an id"),
        (b'{"id": "a\\nb", "status": "Ready"}', "is not an id"),
        (raw({"id": "x" * 257, "status": "Ready"}), "is not an id"),
        (b'{"id": "a", "task_id": "b", "status": "Ready"}', "names two tasks"),
        (b'{"id": "a"}', "names no status"),
        (b'{"id": "a", "status": 7}', "names no status"),
        (b" " * (LARGEST_WEBHOOK + 1), "262145 bytes; at most 262144"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_read_says_why(body, said):
    with pytest.raises(InvalidWebhookError, match=said):
        read(body)


def test_id_and_task_id_may_both_be_there_if_they_agree():
    assert read(raw({**READY, "task_id": "7c1f"})).task.id == "7c1f"


@given(anything | st.dictionaries(names, anything))
def test_any_json_is_read_or_refused_and_nothing_else_happens(body):
    try:
        status = read(json.dumps(body).encode())
    except InvalidWebhookError:
        return
    assert status.task.id
    assert status.word


@given(bodies)
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(body):
    with pytest.raises(InvalidWebhookError):
        read(b"\x00" + body)


def test_what_was_read_shows_no_signed_link():
    assert "CANARY" not in repr(read(raw(READY)))
