"""The service's JSON both ways: what is written is read back, and what is odd is read calmly."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.catalog.rows import Model, get_model
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    Fault,
    InsufficientCreditsError,
    InvalidRequestError,
    ModerationError,
    RateLimitError,
    TaskFailedError,
    TaskNotFoundError,
)
from fluxwerk.protocol import wire
from fluxwerk.types import Outcome, Request, Response, Status, Task

BASE = "https://api.bfl.ai"
TASK = Task("abc", f"{BASE}/v1/get_result?id=abc", "flux-2-pro")
DEEP = b'{"status":' + b"[" * 200_000
TEXTS = st.text(max_size=40)
CREDITS = st.none() | st.decimals(0, 10_000, places=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
# Bodies that look like answers, with anything at all in the places that are read.
BODIES = st.dictionaries(
    st.sampled_from(
        ["id", "status", "state", "polling_url", "cost", "result", "progress", "details", "detail", "error"]
    )
    | st.sampled_from(["message", "credits", "input_mp", "output_mp"]),
    JSON | st.sampled_from(["Ready", "Error", "Task not found", {"sample": "https://a"}, {"sample": 1}]),
).map(lambda body: json.dumps(body).encode())


def answer(body, status=200, **headers):
    return Response(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def poll(body, status=200):
    return wire.read_status(answer(body, status), TASK)


@given(TEXTS.filter(bool), TEXTS.filter(bool), CREDITS, CREDITS, CREDITS)
def test_a_task_is_read_as_it_was_written(identity, url, cost, input_mp, output_mp):
    task = Task(identity, url, "flux-2-pro", cost, input_mp, output_mp)

    assert wire.read_task(wire.write_task(task), "flux-2-pro", BASE) == task


@given(
    # Another spelling of a known word is read as that word.
    st.sampled_from(sorted(wire.OUTCOMES)) | TEXTS.filter(lambda word: wire.read_word(word) == word),
    st.none() | st.integers(),
    st.none() | TEXTS,
    CREDITS,
    st.none() | st.floats(0, 1),
    st.none() | TEXTS.filter(bool) | st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=2),
    st.none() | TEXTS,
)
def test_a_status_is_read_as_it_was_written(word, seed, prompt, cost, progress, details, engine):
    outcome = wire.OUTCOMES.get(word, Outcome.RUNNING)
    status = Status(TASK, word, outcome, "https://a/b.png?sig=c", seed, prompt, cost, progress, details, engine)
    result = {"sample": status.url, "seed": seed, "prompt": prompt, "engine": engine}

    assert wire.read_status(wire.write_status(status, result=result), TASK) == status


@given(CREDITS.filter(lambda credit: credit is not None))
def test_a_balance_is_read_as_it_was_written(credit):
    assert wire.read_credits(wire.write_credits(credit)) == credit


@given(st.sampled_from([400, 401, 402, 403, 404, 422, 429, 500, 503]), st.none() | st.integers(0, 500))
def test_a_refusal_is_read_as_it_was_written(status, seconds):
    refusal = wire.read_refusal(
        wire.write_refusal(status, "No.", error="no", message="Really no.", retry_after=seconds), TASK
    )

    assert str(refusal).startswith(f"The service answered {status}: No.")
    assert (refusal.status, refusal.retry_after, refusal.task) == (status, seconds, TASK)


@given(
    st.one_of(st.binary(max_size=60), JSON.map(lambda body: json.dumps(body).encode()), BODIES), st.integers(100, 599)
)
def test_whatever_a_body_holds_reading_it_raises_nothing_but_value_errors(body, status):
    response = Response(status, {}, body)
    for read in (
        lambda: wire.read_task(response, "flux-2-pro", BASE),
        lambda: wire.read_ending(wire.read_status(response, TASK)),
        lambda: wire.read_credits(response),
    ):
        with suppress(ValueError):
            read()

    assert isinstance(wire.read_refusal(response), APIStatusError)


@pytest.mark.parametrize("body", [DEEP, b"[1]", b"null", b"", b"<html>", b'{"id":', b"\xff\xfe"])
def test_a_body_that_is_no_object_is_no_answer(body):
    for read in (
        lambda: wire.read_task(answer(body), "m", BASE),
        lambda: poll(body),
        lambda: wire.read_credits(answer(body)),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  (any of them is what a caller repeats on)
            read()


def test_a_submit_is_a_keyed_post_of_the_fields_to_the_path_of_the_model():
    http = wire.write_submit(get_model("pro"), Request("flux-2-pro", {"prompt": "füchse", "seed": 1}), BASE)

    assert (http.method, http.url, http.keyed) == ("POST", f"{BASE}/v1/flux-2-pro", True)
    assert http.body == '{"prompt":"füchse","seed":1}'.encode()
    assert http.headers["content-type"] == "application/json"


def test_raw_is_sent_as_ultra_with_raw():
    http = wire.write_submit(get_model("raw"), Request("flux-pro-1.1-raw", {"prompt": "a fox"}), BASE)

    assert http.url == f"{BASE}/v1/flux-pro-1.1-ultra"
    assert json.loads(http.body) == {"prompt": "a fox", "raw": True}


@pytest.mark.parametrize("path", ["v1/new", "/v1/new", ".evil.com/new", "@evil.com/new", ":80/new"])
def test_no_path_changes_the_host_of_a_submit(path):
    http = wire.write_submit(Model("new", path), Request("new", {}), BASE)

    assert http.url.startswith(f"{BASE}/")
    assert urlsplit(http.url).netloc == "api.bfl.ai"


def test_what_has_no_place_in_json_is_not_sent():
    with pytest.raises(TypeError, match="bytes cannot be written as JSON"):
        wire.dump({"input_image": b"\x89PNG"})


def test_numbers_are_written_as_numbers():
    assert wire.dump([Decimal("4.5"), Decimal("3.0"), Decimal(7)]) == b"[4.5,3,7]"


def test_a_poll_goes_to_exactly_the_url_that_the_service_named():
    http = wire.write_poll(TASK)

    assert (http.method, http.url, http.body, http.keyed) == ("GET", TASK.polling_url, b"", True)


def test_a_real_answer_to_a_submit_is_read():
    body = {"id": "2fa25140", "polling_url": "https://api.eu2.bfl.ai/v1/get_result?id=2fa25140", "cost": 4.5}

    task = wire.read_task(answer({**body, "input_mp": 0, "output_mp": 1.98}), "flux-2-pro", BASE)

    assert task == Task("2fa25140", body["polling_url"], "flux-2-pro", Decimal("4.5"), Decimal(0), Decimal("1.98"))


def test_a_webhook_submit_without_a_polling_url_is_polled_at_the_base():
    task = wire.read_task(answer({"id": "a b&c", "status": "Pending", "polling_url": ""}), "m", BASE)

    assert task.polling_url.startswith(f"{BASE}/v1/get_result?")
    assert parse_qs(urlsplit(task.polling_url).query) == {"id": ["a b&c"]}


def test_what_a_webhook_adds_is_written_beside_the_task():
    body = json.loads(wire.write_task(TASK, {"status": "Pending", "webhook_url": "https://a"}).body)

    assert (body["id"], body["status"], body["webhook_url"]) == ("abc", "Pending", "https://a")


@pytest.mark.parametrize("identity", [None, "", 5])
def test_an_answer_without_an_id_is_no_task(identity):
    with pytest.raises(ValueError, match="names no task"):
        wire.read_task(answer({"id": identity, "polling_url": "https://a"}), "m", BASE)


@pytest.mark.parametrize(
    ("written", "read"),
    [("4.5", Decimal("4.5")), (True, None), ("free", None), ([1], None), (float("inf"), None), (float("nan"), None),
     ("1e9999999", None), ("1e-9999999", None)],
)  # fmt: skip
def test_a_cost_that_is_no_number_is_no_cost(written, read):
    assert wire.read_task(answer({"id": "a", "cost": written}), "m", BASE).cost == read


@pytest.mark.parametrize("word", ["Pending", "Reasoning", "Generating", "Queued", "Paused", "readying"])
def test_a_word_that_is_not_known_counts_as_still_running(word):
    assert poll({"status": word}).outcome is Outcome.RUNNING


def test_every_word_of_the_service_has_its_meaning():
    assert {
        word: poll({"status": word, "result": {"sample": "https://a"}}).outcome.value for word in wire.OUTCOMES
    } == {
        "Pending": "running",
        "Reasoning": "running",
        "Generating": "running",
        "Ready": "ready",
        "Request Moderated": "moderated",
        "Content Moderated": "moderated",
        "Error": "failed",
        "Failed": "failed",
        "Task not found": "missing",
    }


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("ready", "Ready"),
        ("READY", "Ready"),
        ("SUCCESS", "Ready"),
        ("succeeded", "Ready"),
        ("content_moderated", "Content Moderated"),
        ("ContentModerated", "Content Moderated"),
        ("request-moderated", "Request Moderated"),
        ("Input Moderated", "Request Moderated"),
        ("error", "Error"),
        ("FAILURE", "Failed"),
        ("task_not_found", "Task not found"),
        (" pending ", "Pending"),
    ],
)
def test_a_word_in_another_spelling_is_read_as_the_services_own(written, word):
    status = poll({"status": written, "result": {"sample": "https://a"}})

    assert (status.word, status.outcome) == (word, wire.OUTCOMES[word])


def test_an_error_page_in_another_spelling_is_believed_only_about_its_task():
    with pytest.raises(ValueError, match="not about the task"):
        poll({"status": "error", "message": "no such route"}, 404)
    assert poll({"status": "error", "id": "abc"}, 404).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "complaint",
    [
        {"error": "content_policy_violation", "message": "No."},
        {"error": "CONTENT-POLICY-VIOLATION"},
        {"details": {"error": "content_policy_violation"}},
        {"error": "content_policy_violation", "details": {"Moderation Reasons": ["Violence"]}},
        {"message": "content_policy_violation: no"},
    ],
)
@pytest.mark.parametrize("word", ["Error", "Failed", "error"])
def test_a_content_policy_violation_is_moderation(complaint, word):
    status = poll({"status": word, **complaint})
    ending = wire.read_ending(status)

    assert status.outcome is Outcome.MODERATED
    assert isinstance(ending, ModerationError)
    assert ending.stage == "request"


def test_a_content_policy_violation_names_the_stage_that_its_message_names():
    status = poll({"status": "Error", "error": "content_policy_violation", "message": "Content Moderated"})

    assert wire.read_ending(status).stage == "content"


@pytest.mark.parametrize("code", [202, 404, 422, 500, 503])
def test_the_body_of_a_poll_is_read_before_its_code_is_judged(code):
    assert poll({"status": "Error"}, code).outcome is Outcome.FAILED
    assert poll({"state": "Pending"}, code).outcome is Outcome.RUNNING


def test_an_error_page_with_a_status_of_its_own_is_no_status():
    assert poll({"status": "fail"}, 202).outcome is Outcome.RUNNING
    with pytest.raises(ValueError, match="not about the task"):
        poll({"status": "fail", "message": "no such route"}, 401)


@pytest.mark.parametrize("body", [{}, {"status": 500}, {"status": None}, {"detail": "Not Found"}])
def test_a_poll_without_a_word_says_nothing(body):
    with pytest.raises(ValueError, match="names no status"):
        poll(body)


@pytest.mark.parametrize("result", [None, {}, {"sample": ""}, {"sample": 5}, "https://a"])
def test_ready_without_a_link_is_not_ready(result):
    with pytest.raises(ValueError, match="names no image"):
        poll({"status": "Ready", "result": result})


def test_a_ready_task_is_read_with_all_that_is_known_of_it():
    result = {"sample": "https://a/b.png?sig=c", "seed": 7, "prompt": "a red fox", "engine": "offline", "cost": 4.5}

    status = poll({"status": "Ready", "result": result, "progress": None, "cost": None})

    assert (status.url, status.seed, status.prompt, status.engine) == (result["sample"], 7, "a red fox", "offline")
    assert (status.cost, status.progress, status.details) == (Decimal("4.5"), None, None)


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        ({"duration": 3.5, "start_time": 1.0, "end_time": 9.0}, 3.5),
        ({"start_time": 1737000000.25, "end_time": 1737000003.5}, 3.25),
        ({"start_time": 1737000000.25}, None),
        ({"duration": -1}, None),
        ({"duration": "soon"}, None),
        ({"start_time": 5, "end_time": 5}, None),
        ({"start_time": 5, "end_time": "1e9999999"}, None),
    ],
)
def test_how_long_the_service_worked_is_read_where_it_says_so(result, seconds):
    body = {"id": "1", "status": "Ready", "result": {"sample": "https://delivery.bfl.ai/a.png", **result}}

    assert wire.read_status(Response(200, {}, json.dumps(body).encode()), TASK).seconds == seconds


def test_a_settled_cost_beside_the_result_comes_first():
    status = poll({"status": "Ready", "result": {"sample": "https://a", "cost": 9}, "cost": 0})

    assert status.cost == 0


def test_what_is_of_the_wrong_type_is_left_out():
    status = poll(
        {"status": "Pending", "result": {"sample": 1, "seed": "x", "prompt": [], "engine": 2}, "progress": {}}
    )

    assert status == Status(TASK, "Pending", Outcome.RUNNING)


def test_progress_may_be_any_number():
    assert poll({"status": "Pending", "progress": 0.25}).progress == 0.25
    assert poll({"status": "Pending", "progress": 10**400}).progress == float("inf")


def test_the_failure_of_the_guide_tells_code_and_message():
    status = poll({"status": "Error", "error": "invalid_image", "message": "The image cannot be decoded"})

    assert status.details == "invalid_image: The image cannot be decoded"
    assert str(wire.read_ending(status)) == (
        "The task ended without an image: invalid_image: The image cannot be decoded."
    )


def test_details_come_before_error_and_message():
    assert poll({"status": "Error", "details": {"a": 1}, "error": "b"}).details == {"a": 1}


@pytest.mark.parametrize("word", ["Pending", "Ready", "Something new"])
def test_what_runs_or_is_ready_has_no_bad_ending(word):
    assert wire.read_ending(poll({"status": word, "result": {"sample": "https://a"}})) is None


@pytest.mark.parametrize(("word", "stage"), [("Request Moderated", "request"), ("Content Moderated", "content")])
def test_moderation_tells_its_stage_and_its_reasons(word, stage):
    details = {"Moderation Reasons": ["Violence", "Self Harm"]}

    ending = wire.read_ending(poll({"status": word, "details": details}))

    assert isinstance(ending, ModerationError)
    assert (ending.stage, ending.reasons, ending.details) == (stage, ("Violence", "Self Harm"), details)
    assert ending.task == TASK
    assert "Violence" in str(ending)


@pytest.mark.parametrize("details", [None, "Violence", {"Moderation Reasons": "Violence"}, {"other": 1}])
def test_moderation_without_a_list_of_reasons_has_none(details):
    assert wire.read_ending(poll({"status": "Content Moderated", "details": details})).reasons == ()


def test_a_task_that_is_not_known_is_forgotten():
    ending = wire.read_ending(poll({"status": "Task not found"}))

    assert isinstance(ending, TaskNotFoundError)
    assert "abc" in str(ending)
    assert ending.task == TASK


def test_a_failed_task_is_a_failure_and_nothing_more():
    assert type(wire.read_ending(poll({"status": "Failed"}))) is TaskFailedError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, InsufficientCreditsError),
        (403, AuthenticationError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (503, RateLimitError),
        (404, APIStatusError),
        (500, APIStatusError),
        (302, APIStatusError),
    ],
)
def test_a_refusal_is_of_the_kind_of_its_code(status, kind):
    assert type(wire.read_refusal(answer({}, status))) is kind


def test_a_malformed_key_is_a_matter_of_the_key_whatever_its_code():
    refusal = wire.read_refusal(answer({"detail": "Invalid API key format"}, 422))

    assert type(refusal) is AuthenticationError
    assert "BFL_API_KEY" in str(refusal)


def test_a_refusal_for_want_of_credits_says_where_to_add_them():
    text = str(wire.read_refusal(answer({"error": "insufficient_credits", "message": "Too few."}, 402)))

    assert text == ("The service answered 402: insufficient_credits: Too few. Add credits at https://dashboard.bfl.ai.")


def test_the_fields_of_a_422_are_named():
    detail = [
        {"loc": ["body", "width"], "msg": "too small", "type": "greater_than_equal"},
        {"loc": ["query", "id"], "msg": "missing"},
        {"loc": ["body"]},
        "odd",
    ]

    refusal = wire.read_refusal(answer({"detail": detail}, 422))

    assert refusal.faults == (
        Fault("width", None, "too small"),
        Fault("query.id", None, "missing"),
        Fault("request", None, "is wrong"),
        Fault("request", None, "odd"),
    )
    assert "width: too small; query.id: missing" in str(refusal)


def test_the_fields_of_the_guides_400_are_named():
    body = {"error": "validation_error", "message": "Wrong", "details": {"width": "too small"}}

    refusal = wire.read_refusal(answer(body, 400))

    assert refusal.faults == (Fault("width", None, "too small"),)
    assert "validation_error: Wrong: width: too small" in str(refusal)


def test_detail_comes_before_error_and_message():
    refusal = wire.read_refusal(answer({"detail": {"a": 1}, "error": "b"}, 400))

    assert str(refusal) == 'The service answered 400: {"a": 1}.'


@pytest.mark.parametrize("body", [b"upstream   connect\nerror", b'{"code": 7}'])
def test_an_error_of_no_known_shape_is_quoted(body):
    assert str(wire.read_refusal(answer(body, 502))) == f"The service answered 502: {' '.join(body.decode().split())}."


def test_an_error_without_a_body_tells_its_code():
    assert str(wire.read_refusal(answer(b"", 500))) == "The service answered 500."


def test_a_long_error_is_cut():
    assert len(str(wire.read_refusal(answer(b"x" * 100_000, 500)))) < 350


def test_a_signed_link_in_an_error_is_not_repeated():
    link = "https://delivery.bfl.ai/a.png?sig=secret"

    assert "secret" not in str(wire.read_refusal(answer({"detail": f"cannot fetch {link}"}, 400)))
    assert "secret" not in str(wire.read_ending(poll({"status": "Error", "details": {"url": link}})))


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "x" * 5000},
        {"detail": [{"loc": ["body", "y" * 500], "msg": "x" * 5000}] * 50},
        {"error": "e" * 5000, "message": "m" * 5000},
        {"error": "e", "details": {f"field{number}": "x" * 500 for number in range(50)}},
        b"<html>" + b"x" * 5000,
    ],
)
def test_a_refusal_repeats_at_most_200_characters_of_what_came(body):
    assert len(str(wire.read_refusal(answer(body, 422)))) <= len("The service answered 422: .") + 200


@pytest.mark.parametrize("word", ["Error", "Content Moderated", "Request Moderated", "Task not found"])
def test_an_ending_repeats_at_most_200_characters_of_what_came(word):
    task = Task("t" * 5000, "https://a")
    body = {"status": word, "details": {"Moderation Reasons": ["x" * 5000]}, "error": "e" * 5000, "message": "m" * 5000}

    assert len(str(wire.read_ending(wire.read_status(answer(body), task)))) < 330
