"""The conversation: what is repeated, what never is, and how every task ends.

Answers are literal responses played to a flow by hand; the longer talks are face to face with a real service.
"""

from __future__ import annotations

import base64
import json
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.catalog.rows import get_model
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    InsufficientCreditsError,
    InvalidRequestError,
    LinkExpiredError,
    ModerationError,
    NoResponseError,
    RateLimitError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
    TransportError,
    UntrustedURLError,
)
from fluxwerk.protocol import flow, retry, wire
from fluxwerk.protocol.idempotency import Promises
from fluxwerk.testing.face_to_face import FaceToFace, blank
from fluxwerk.types import HttpRequest, Outcome, Request, Response, Status, Task

BASE = "https://api.bfl.ai"
PRO = get_model("flux-2-pro")
FOX = Request("flux-2-pro", {"prompt": "a fox"})
TASK = Task("abc", "https://api.eu2.bfl.ai/v1/get_result?id=abc", "flux-2-pro", Decimal(3))
LINK = "https://delivery-eu1.bfl.ai/results/abc/sample.png?sig=secret"
FRESH = "https://delivery-eu1.bfl.ai/results/abc/sample.png?sig=fresh"
READY = Status(TASK, "Ready", Outcome.READY, LINK)
PNG = blank(64, 64)
LOST = NoResponseError("the line went dead")
AWAY = ConnectionFailedError("connection refused")
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
HALF_A_MINUTE_LATER = "Wed, 21 Oct 2015 07:28:30 GMT"


def says(body, status=200, **headers):
    """A response with that JSON; underscores in the names of headers stand for hyphens."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, names, json.dumps(body).encode())


ACCEPTED = says({"id": "abc", "polling_url": TASK.polling_url, "cost": 3})
IMAGE = Response(200, {"content-type": "image/png"}, PNG)


def told(word, status=200, **more):
    return says({"id": "abc", "status": word, **more}, status)


def ready(link=LINK):
    return told("Ready", result={"sample": link})


class Talk:
    """A flow played against these answers, exceptions among them thrown: its calls and how it ended, if it did."""

    def __init__(self, steps, *answers):
        self.calls = []
        self.result = self.error = None
        self.goes_on = False
        self.unheard = list(answers)
        try:
            self.calls.append(next(steps))
            while self.unheard:
                answer = self.unheard.pop(0)
                move = steps.throw if isinstance(answer, Exception) else steps.send
                self.calls.append(move(answer))
            self.goes_on = True
            steps.close()
        except StopIteration as done:
            self.result = done.value
        except FluxwerkError as error:
            self.error = error

    @property
    def pauses(self):
        return [call.after for call in self.calls]

    @property
    def urls(self):
        return [call.request.url for call in self.calls]


def submitting(*answers, tell=None):
    return Talk(flow.submit(PRO, FOX, BASE, *([tell] if tell else [])), *answers)


def waiting(*answers, task=TASK, base=BASE):
    return Talk(flow.wait(task, base), *answers)


def downloading(*answers, status=READY, base=BASE):
    return Talk(flow.download(status, base), *answers)


def asking(*answers):
    return Talk(flow.ask_credits(BASE), *answers)


def test_a_submit_is_sent_at_once_and_its_task_returned():
    talk = submitting(ACCEPTED)

    assert talk.result == TASK
    assert talk.pauses == [0]
    assert talk.urls == [f"{BASE}/v1/flux-2-pro"]
    assert talk.calls[0].request.keyed


def test_an_unanswered_submit_is_not_repeated():
    talk = submitting(LOST)

    assert type(talk.error) is InDoubtError
    assert len(talk.calls) == 1
    assert "may have been charged" in str(talk.error)
    assert "the line went dead" in str(talk.error)
    assert talk.error.__cause__ is LOST


@pytest.mark.parametrize("answers", [[AWAY], [says({}, 429)], [says({}, 503, retry_after="1")], [AWAY, says({}, 429)]])
def test_an_unanswered_submit_is_not_repeated_after_trouble_either(answers):
    talk = submitting(*answers, LOST)

    assert type(talk.error) is InDoubtError
    assert len(talk.calls) == len(answers) + 1


OURS = "https://images.example"
KEPT = {"x-fluxwerk-idempotency": "3600"}
PAGE = Response(502, {}, b"<html>bad gateway</html>")
BALANCE = Response(200, KEPT, b'{"credits":10}')


def kept(response, seconds="3600"):
    """The same answer from a server that keeps keys."""
    return Response(response.status, {**response.headers, "x-fluxwerk-idempotency": seconds}, response.body)


def promising(*answers, seconds=3600.0, key="key-1", others=(), once=False):
    """A submit to a server that was heard to keep keys for so many seconds, `None` if it was never heard."""
    promises = Promises()
    if seconds is not None:
        promises.note(HttpRequest("GET", OURS), kept(Response(200), str(int(seconds))))
    return Talk(flow.submit(PRO, FOX, OURS, others=others, key=key, promises=promises, once=once), *answers)


def repeating(*answers):
    promises = Promises()
    promises.note(HttpRequest("GET", OURS), kept(Response(200)))
    return Talk(flow.repeat(PRO, FOX, OURS, "key-1", promises), *answers)


@pytest.mark.parametrize("trouble", [LOST, PAGE, says({}, 503), says({"status": "Pending"})])
def test_a_lost_submit_is_repeated_with_its_key_where_keys_are_kept(trouble):
    talk = promising(trouble, ACCEPTED)

    assert talk.result == TASK
    first, again = (call.request for call in talk.calls)
    assert first == again
    assert first.headers["idempotency-key"] == "key-1"


def test_a_server_that_was_never_heard_is_asked_whether_it_keeps_keys():
    talk = promising(LOST, BALANCE, ACCEPTED, seconds=None)

    assert talk.result == TASK
    assert talk.urls == [f"{OURS}/v1/flux-2-pro", f"{OURS}/v1/credits", f"{OURS}/v1/flux-2-pro"]


@pytest.mark.parametrize("answer", [says({"credits": 10}), says({}, 500), says({}, 403), TaskTimeoutError()])
def test_without_the_promise_a_lost_submit_stays_in_doubt(answer):
    talk = promising(LOST, answer, seconds=None)

    assert type(talk.error) is InDoubtError
    assert [call.request.method for call in talk.calls] == ["POST", "GET"]


def test_an_unreachable_server_is_not_asked_for_its_promise_forever():
    talk = promising(LOST, *[AWAY] * 5, seconds=None)

    assert type(talk.error) is InDoubtError
    assert [call.request.method for call in talk.calls] == ["POST", *["GET"] * 5]


def test_a_server_that_is_known_to_keep_no_keys_is_not_asked():
    assert len(promising(LOST, seconds=0).calls) == 1
    assert len(promising(LOST, key="").calls) == 1


@pytest.mark.parametrize("trouble", [LOST, AWAY, PAGE, says({}, 401), says({}, 409), says({}, 429), says({}, 404)])
def test_what_proves_nothing_is_asked_again_until_the_task_comes(trouble):
    assert promising(LOST, trouble, trouble, ACCEPTED).result == TASK


def test_a_refused_repetition_proves_that_the_first_was_not_taken():
    refusal = kept(says({"detail": "no credits"}, 402))

    assert type(promising(LOST, refusal).error) is InsufficientCreditsError
    assert type(repeating(refusal).error) is InsufficientCreditsError


def test_a_key_that_was_used_with_another_body_proves_nothing():
    reused = kept(says({"detail": [{"type": "idempotency_key_reused"}]}, 422))

    assert type(repeating(*[reused] * retry.REPEATED_SUBMITS).error) is InDoubtError


@pytest.mark.parametrize("end", [TaskTimeoutError(), ConnectionFailedError("closed", permanent=True)])
def test_a_repetition_that_ends_early_leaves_the_first_doubt(end):
    talk = promising(LOST, end)

    assert type(talk.error) is InDoubtError
    assert talk.error.__cause__ is LOST


def test_a_lost_submit_is_repeated_for_more_than_a_minute_and_then_in_doubt():
    talk = promising(LOST, *[AWAY] * retry.REPEATED_SUBMITS)

    assert type(talk.error) is InDoubtError
    assert sum(talk.pauses) > 60


def test_a_repetition_waits_as_long_as_the_server_asks():
    assert promising(LOST, says({}, 429, retry_after="30"), ACCEPTED).pauses[-1] == 30


def test_a_lost_submit_does_not_move_to_another_region():
    talk = promising(LOST, AWAY, ACCEPTED, others=["https://api.us.bfl.ai"])

    assert talk.urls == [f"{OURS}/v1/flux-2-pro"] * 3


def test_a_submit_in_doubt_is_sent_again_with_its_key():
    talk = repeating(ACCEPTED)

    assert talk.result == TASK
    assert talk.calls[0].request.headers["idempotency-key"] == "key-1"


@pytest.mark.parametrize(("answer", "kind"), [(AWAY, ConnectionFailedError), (says({}, 429), RateLimitError)])
def test_a_submit_that_is_sent_once_raises_what_another_repeats(answer, kind):
    talk = promising(answer, once=True)

    assert type(talk.error) is kind
    assert len(talk.calls) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524, 599])
def test_a_server_error_on_a_submit_leaves_it_in_doubt(status):
    talk = submitting(says({"detail": "oops"}, status))

    assert type(talk.error) is InDoubtError
    assert len(talk.calls) == 1
    assert "oops" in str(talk.error)
    assert talk.error.__cause__.status == status


@pytest.mark.parametrize("seconds", ["soon", "", HALF_A_MINUTE_LATER])
def test_a_503_that_does_not_say_when_leaves_a_submit_in_doubt(seconds):
    assert type(submitting(says({}, 503, retry_after=seconds)).error) is InDoubtError


@pytest.mark.parametrize("body", [b"<html>ok</html>", b"", b"[]", b'{"status":"Pending"}', b"[" * 200_000])
def test_a_success_that_names_no_task_leaves_a_submit_in_doubt(body):
    talk = submitting(Response(200, {}, body))

    assert type(talk.error) is InDoubtError
    assert len(talk.calls) == 1
    assert "could not be read" in str(talk.error)


def test_what_never_left_is_sent_again_after_growing_pauses():
    talk = submitting(AWAY, AWAY, AWAY, ACCEPTED)

    assert talk.result == TASK
    assert talk.pauses == [0, 0.5, 1, 2]


def test_a_service_that_cannot_be_reached_five_times_is_given_up():
    talk = submitting(*[AWAY] * 6)

    assert talk.error is AWAY
    assert len(talk.calls) == 5


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "pause"),
    [("7", 7), ("1.5", 1.5), ("120", 120), (HALF_A_MINUTE_LATER, 30)],
    ids=["7", "1.5", "120", "date"],
)
def test_a_refusal_that_says_when_to_come_back_is_obeyed(status, asked, pause):
    talk = submitting(says({}, status, retry_after=asked, date=DATE), ACCEPTED)

    assert talk.result == TASK
    assert talk.pauses == [0, pause]


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_asks_for_more_than_two_minutes_is_raised_at_once(status):
    talk = submitting(says({}, status, retry_after="121"))

    assert type(talk.error) is RateLimitError
    assert (talk.error.status, talk.error.retry_after) == (status, 121)
    assert len(talk.calls) == 1


def test_a_429_that_does_not_say_when_is_repeated_after_growing_pauses():
    assert submitting(*[says({}, 429)] * 7).pauses == [0, 0.5, 1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize("asked", ["0", DATE])
def test_a_refusal_that_asks_for_no_pause_is_not_stormed(asked):
    talk = submitting(*[says({}, 429, retry_after=asked, date=DATE)] * 4)

    assert talk.pauses[1:] == [0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, InsufficientCreditsError),
        (403, AuthenticationError),
        (404, APIStatusError),
        (422, InvalidRequestError),
        (302, APIStatusError),
        (307, APIStatusError),
        (418, APIStatusError),
    ],
)
def test_a_plain_refusal_of_a_submit_is_raised_at_once(status, kind):
    talk = submitting(says({"detail": "no"}, status, location="https://evil.com/"))

    assert type(talk.error) is kind
    assert talk.error.status == status
    assert len(talk.calls) == 1


@given(
    st.lists(st.sampled_from([AWAY, says({}, 429), says({}, 503, retry_after="2")]), max_size=4), st.integers(100, 599)
)
def test_no_submit_follows_one_that_may_have_been_accepted(refusals, status):
    talk = submitting(*refusals, says({}, status), ACCEPTED)

    if talk.result == TASK:
        assert status == 429
    else:
        assert isinstance(talk.error, InDoubtError if status >= 500 or status in flow.OK else APIStatusError)
        assert talk.unheard == [ACCEPTED]


def test_a_deadline_before_a_submit_costs_nothing_and_passes_through():
    talk = submitting(says({}, 429), TaskTimeoutError("too late"))

    assert type(talk.error) is TaskTimeoutError
    assert talk.error.task is None


def test_a_repetition_may_be_stretched_so_that_many_do_not_knock_at_once():
    assert submitting(AWAY, ACCEPTED).calls[1].jitter == retry.JITTER


def test_a_submit_tells_of_each_repetition_and_of_its_task():
    events = []

    submitting(AWAY, says({}, 429), ACCEPTED, tell=events.append)

    assert [(event.kind, event.attempt) for event in events] == [("retrying", 1), ("retrying", 2), ("submitted", 3)]
    assert "connection refused" in events[0].reason
    assert "429" in events[1].reason
    assert events[2].task == TASK


def test_a_task_is_polled_at_exactly_its_url_until_it_is_ready():
    talk = waiting(told("Pending"), told("Reasoning"), told("Generating"), ready())

    assert talk.result == READY
    assert set(talk.urls) == {TASK.polling_url}
    assert talk.pauses == pytest.approx([0.1, 0.15, 0.225, 0.3375])
    assert all(call.request.keyed and call.jitter == 0 for call in talk.calls)


@pytest.mark.parametrize("trouble", [LOST, AWAY, says({}, 500), says({}, 502), says({}, 503), says({}, 429)])
def test_a_poll_that_fails_is_repeated_for_as_long_as_there_is_time(trouble):
    talk = waiting(*[trouble] * 30, ready())

    assert talk.result == READY
    assert talk.pauses[1:7] == [0.5, 1, 2, 4, 8, 8]
    assert talk.calls[1].jitter == retry.JITTER


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"status":"Ready"}', b'{"status":"Ready","result":{"sample":""}}']
)
def test_a_poll_that_says_nothing_is_repeated(body):
    assert waiting(Response(200, {}, body), ready()).result == READY


def test_a_poll_that_succeeds_forgets_the_failures_before_it():
    talk = waiting(LOST, LOST, told("Pending"), LOST, ready())

    assert talk.pauses == pytest.approx([0.1, 0.5, 1, 0.15, 0.5])


def test_a_busy_poll_is_obeyed():
    assert waiting(says({}, 429, retry_after="7"), ready()).pauses[1] == 7
    assert waiting(says({}, 503, retry_after=HALF_A_MINUTE_LATER, date=DATE), ready()).pauses[1] == 30
    assert waiting(says({}, 503, retry_after="0"), ready()).pauses[1] == 0.5


def test_a_poll_refused_for_two_minutes_raises_with_its_task():
    """A poll that is told to wait for more than two minutes raises with its task."""
    talk = waiting(says({}, 429, retry_after="3600"))

    assert type(talk.error) is RateLimitError
    assert talk.error.task == TASK


def test_a_poll_that_is_refused_outright_three_times_is_given_up():
    talk = waiting(*[says({"detail": "Not authenticated"}, 403)] * 4)

    assert type(talk.error) is AuthenticationError
    assert talk.error.task == TASK
    assert len(talk.calls) == 3


def test_refusals_count_only_when_nothing_else_comes_between():
    refusal = says({}, 404)

    assert waiting(refusal, refusal, LOST, refusal, refusal, told("Pending"), refusal, ready()).result == READY


@pytest.mark.parametrize("status", [202, 404, 422, 500, 503])
def test_the_body_of_a_poll_is_read_before_its_code_is_judged(status):
    assert waiting(told("Pending", status), ready()).result == READY
    talk = waiting(told("Error", status, details="no luck"))

    assert type(talk.error) is TaskFailedError
    assert len(talk.calls) == 1
    assert "no luck" in str(talk.error)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("Error", TaskFailedError),
        ("Failed", TaskFailedError),
        ("Request Moderated", ModerationError),
        ("Content Moderated", ModerationError),
    ],
)
def test_a_bad_ending_ends_the_wait_with_the_task(word, kind):
    talk = waiting(told("Pending"), told(word, details={"why": "so"}))

    assert type(talk.error) is kind
    assert talk.error.task == TASK
    assert talk.error.details == {"why": "so"}


def test_every_word_of_the_service_ends_the_wait_or_goes_on():
    ends = {word for word in wire.OUTCOMES if not waiting(told(word, result={"sample": LINK})).goes_on}

    assert ends == {"Ready", "Error", "Failed", "Request Moderated", "Content Moderated"}
    assert wire.OUTCOMES.keys() - ends == {"Pending", "Reasoning", "Generating", "Task not found"}


def test_a_word_that_is_not_known_keeps_running():
    assert waiting(*[told("Daydreaming")] * 50).goes_on
    assert waiting(told("Daydreaming"), ready()).result == READY


def test_moderation_tells_its_stage_and_its_reasons():
    reasons = {"Moderation Reasons": ["Violence"]}

    before = waiting(told("Request Moderated", details=reasons)).error
    after = waiting(told("Content Moderated", details=reasons)).error

    assert (before.stage, before.reasons) == ("request", ("Violence",))
    assert (after.stage, after.reasons) == ("content", ("Violence",))


def test_a_task_that_is_not_found_just_after_the_submit_is_asked_for_again():
    assert waiting(told("Task not found"), told("Task not found", 404), ready()).result == READY


def test_a_task_that_stays_unknown_for_ten_seconds_is_forgotten():
    talk = waiting(*[told("Task not found")] * 100)

    assert type(talk.error) is TaskNotFoundError
    assert talk.error.task == TASK
    assert retry.GRACE <= sum(talk.pauses) < retry.GRACE + retry.LONGEST_POLL


def test_a_task_not_found_after_an_early_webhook_is_polled_again():
    """A task that is not found when a bell rings early is asked for again."""
    # The first pause was to be a minute, and may have been cut to nothing: its length says nothing of the time since.
    steps = flow.wait(TASK, BASE, plan=lambda status: 1.0 if status else 60.0)
    call = next(steps)
    assert (call.after, call.early) == (60.0, True)
    for _ in range(9):
        call = steps.send(told("Task not found"))
        assert (call.after, call.early) == (1.0, False)
    with pytest.raises(StopIteration):
        steps.send(ready())


def test_only_a_pause_that_nobody_asked_for_may_be_cut_short():
    busy, unknown = says({}, 429, retry_after="30"), told("Task not found")

    talk = waiting(unknown, told("Pending"), busy, told("Pending"), says({}, 503), LOST, says({}, 500), ready())

    assert [call.early for call in talk.calls] == [True, False, True, False, True, False, True, True]
    assert not submitting(AWAY).calls[1].early
    assert not downloading(LOST).calls[1].early


@pytest.mark.parametrize(
    "url", ["https://evil.com/v1/get_result?id=abc", "http://api.bfl.ai/x", "https://api.bfl.ai.evil.com/x", "", "/x"]
)
def test_a_foreign_polling_url_is_refused_before_any_call(url):
    foreign = Task("abc", url)

    talk = waiting(task=foreign)

    assert type(talk.error) is UntrustedURLError
    assert talk.calls == []
    assert talk.error.task == foreign


def test_a_deadline_while_waiting_carries_the_task_and_how_to_collect_it():
    talk = waiting(told("Pending"), TaskTimeoutError("Too late."))

    assert type(talk.error) is TaskTimeoutError
    assert talk.error.task == TASK
    assert "fluxwerk wait abc" in str(talk.error)


def test_an_error_that_has_a_task_keeps_it():
    another = Task("xyz", "https://api.bfl.ai/")

    assert waiting(TaskTimeoutError("Too late.", task=another)).error.task == another


def test_a_wait_tells_of_each_poll():
    events = []

    Talk(flow.wait(TASK, BASE, events.append), told("Pending"), LOST, ready())

    assert [(event.kind, event.attempt) for event in events] == [
        ("polled", 1),
        ("retrying", 2),
        ("polled", 3),
        ("ready", 3),
    ]
    assert all(event.task == TASK for event in events)
    assert events[-1].status == READY


@pytest.mark.parametrize(
    "answers", [[LOST], [says({}, 500)], [says({}, 403)] * 3, [told("Error")], [TaskTimeoutError()]]
)
def test_nothing_that_happens_to_a_poll_submits_again(answers):
    talk = waiting(*answers)

    assert {call.request.method for call in talk.calls} == {"GET"}


def test_an_image_is_fetched_at_once_and_without_the_key():
    talk = downloading(IMAGE)

    assert talk.result == PNG
    assert talk.urls == [LINK]
    assert talk.pauses == [0]
    assert not talk.calls[0].request.keyed


@pytest.mark.parametrize(
    "trouble",
    [
        LOST,
        AWAY,
        Response(500),
        Response(429),
        Response(206, {}, PNG),
        Response(204),
        Response(200),
        Response(200, {}, PNG[:-5]),
        Response(200, {}, b"<!DOCTYPE html><p>Sign in"),
        Response(200, {"content-type": "image/png"}, b"GIF89a" + bytes(99)),
        Response(200, {}, b'{"error":"x"}'),
    ],
)
def test_what_is_not_a_whole_image_never_counts_and_is_fetched_again(trouble):
    talk = downloading(*[trouble] * 6, IMAGE)

    assert talk.result == PNG
    assert talk.urls == [LINK] * 7
    assert talk.pauses == [0, 0.5, 1, 2, 4, 8, 8]


@pytest.mark.parametrize("status", sorted(flow.DEAD_LINK))
def test_a_dead_link_is_replaced_once_by_polling_again(status):
    talk = downloading(Response(status), told("Pending"), ready(FRESH), IMAGE)

    assert talk.result == PNG
    assert talk.urls == [LINK, TASK.polling_url, TASK.polling_url, FRESH]
    assert [call.request.keyed for call in talk.calls] == [False, True, True, False]


def test_a_fresh_link_that_is_dead_as_well_has_expired():
    talk = downloading(Response(403), ready(FRESH), Response(403))

    assert type(talk.error) is LinkExpiredError
    assert talk.error.task == TASK
    assert talk.urls == [LINK, TASK.polling_url, FRESH]


def test_trouble_after_a_fresh_link_is_still_only_trouble():
    assert downloading(Response(403), ready(FRESH), LOST, Response(502), IMAGE).result == PNG


def test_a_task_that_is_forgotten_by_the_time_its_link_is_dead_says_so():
    talk = downloading(Response(404), *[told("Task not found")] * 50)

    assert type(talk.error) is TaskNotFoundError
    assert talk.error.task == TASK


def test_a_redirect_is_followed_without_the_key():
    talk = downloading(Response(302, {"location": "https://store.example.com/a?sig=x"}), IMAGE)

    assert talk.result == PNG
    assert talk.urls[1] == "https://store.example.com/a?sig=x"
    assert talk.pauses == [0, 0]
    assert not talk.calls[1].request.keyed


def test_a_redirect_within_a_host_is_followed():
    talk = downloading(Response(307, {"location": "/b.png?sig=y"}), IMAGE)

    assert talk.urls[1] == "https://delivery-eu1.bfl.ai/b.png?sig=y"


TARGETS = ["http://store.example.com/a", "file:///etc/passwd", "ftp://a", "https://a@b.com/", "https://[/a"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_redirect_is_checked_before_it_is_followed(target):
    talk = downloading(Response(302, {"location": target}))

    assert type(talk.error) is UntrustedURLError
    assert talk.error.task == TASK
    assert len(talk.calls) == 1


def test_a_redirect_to_what_is_no_url_is_refused():
    talk = downloading(Response(302, {"location": "https://[::1/"}))

    assert type(talk.error) is UntrustedURLError
    assert "something that is not a URL" in str(talk.error)


def test_redirects_without_end_are_not_followed_for_ever():
    talk = downloading(*[Response(302, {"location": LINK})] * 5)

    assert talk.goes_on
    assert talk.pauses == [0, 0, 0, 0, 0.5, 0]


def test_a_redirect_to_nowhere_is_trouble():
    talk = downloading(Response(304), IMAGE)

    assert talk.result == PNG
    assert talk.pauses == [0, 0.5]


@pytest.mark.parametrize("url", ["http://delivery.bfl.ai/a.png?sig=secret", "", None])
def test_a_link_that_may_not_be_followed_is_refused_before_any_call(url):
    talk = downloading(status=Status(TASK, "Ready", Outcome.READY, url))

    assert type(talk.error) is UntrustedURLError
    assert talk.error.task == TASK
    assert talk.calls == []
    assert "secret" not in str(talk.error)


def test_a_server_of_ones_own_may_deliver_in_the_clear():
    local = Status(TASK, "Ready", Outcome.READY, "http://127.0.0.1:8000/delivery/a.png")

    assert downloading(IMAGE, status=local, base="http://127.0.0.1:8000").result == PNG


def test_a_deadline_while_downloading_carries_the_task():
    talk = downloading(Response(500), TaskTimeoutError("Too late."))

    assert type(talk.error) is TaskTimeoutError
    assert talk.error.task == TASK


def test_a_download_tells_of_each_repetition_and_of_its_end():
    events = []

    Talk(flow.download(READY, BASE, events.append), LOST, Response(500), IMAGE)

    assert [(event.kind, event.attempt) for event in events] == [("retrying", 1), ("retrying", 2), ("downloaded", 3)]
    assert [event.reason for event in events[:2]] == ["download: the line went dead", "download: answered 500"]


@pytest.mark.parametrize(
    "error", [downloading(Response(403), ready(), Response(403)), waiting(told("Error")), submitting(LOST)]
)
def test_an_error_of_the_conversation_survives_the_way_to_another_process(error):
    arrived = pickle.loads(pickle.dumps(error.error))

    assert (type(arrived), str(arrived), arrived.task) == (type(error.error), str(error.error), error.error.task)


def test_the_balance_is_asked_for_with_the_key():
    talk = asking(says({"credits": 123.4}))

    assert talk.result == Decimal("123.4")
    assert talk.urls == [f"{BASE}/v1/credits"]
    assert talk.calls[0].request.keyed


@pytest.mark.parametrize("trouble", [LOST, AWAY, says({}, 500), says({}, 429), says({}), Response(200, {}, b"<html>")])
def test_a_balance_that_is_lost_is_asked_for_again_and_in_the_end_given_up(trouble):
    assert asking(*[trouble] * 4, says({"credits": 7})).result == 7
    talk = asking(*[trouble] * 6)

    assert isinstance(talk.error, TransportError | APIStatusError)
    assert talk.pauses == [0, 0.5, 1, 2, 4]


def test_a_balance_that_is_refused_is_not_asked_for_again():
    talk = asking(says({"detail": "Not authenticated"}, 403))

    assert type(talk.error) is AuthenticationError
    assert len(talk.calls) == 1


def posts(pair):
    return [http for http in pair.journal if http.method == "POST"]


def test_an_image_is_submitted_waited_for_and_downloaded():
    pair = FaceToFace(seconds=3.0)

    image = pair.generate("a fox", width=64, height=64, seed=7)

    assert (image.width, image.height, image.seed, image.cost) == (64, 64, 7, 3)
    assert [http.method for http in pair.journal].count("POST") == 1
    assert [event.kind for event in pair.events][-2:] == ["ready", "downloaded"]


@pytest.mark.parametrize("seconds", [0.0, 5.0, 60.0])
def test_an_image_is_noticed_within_two_seconds_of_being_ready(seconds):
    pair = FaceToFace(seconds=seconds)
    began = pair.clock.now()

    pair.generate("a fox", width=64, height=64)

    assert seconds <= pair.clock.now() - began <= seconds + 2.2


def test_one_line_in_three_being_cut_never_buys_a_second_image():
    heard = iter(range(10**6))

    def cut(http, response):
        if http.method == "GET" and next(heard) % 3 == 0:
            raise NoResponseError("cut")
        return response

    pair = FaceToFace(seconds=5.0, intercept=cut)

    assert pair.generate("a fox", width=64, height=64).width == 64
    assert len(posts(pair)) == 1


def test_a_submit_whose_answer_is_lost_reaches_the_service_once():
    def cut(http, response):
        raise NoResponseError("cut")

    pair = FaceToFace(intercept=cut)

    with pytest.raises(InDoubtError):
        pair.generate("a fox", width=64, height=64)

    assert [request.method for request in pair.journal].count("POST") == 1


def test_more_tasks_than_slots_wait_their_turn_and_all_arrive():
    pair = FaceToFace(seconds=4.0)

    images = pair.together([pair.begin(f"fox {n}", width=64, height=64) for n in range(60)])

    assert all(image.width == 64 for image in images)
    assert len({image.task.id for image in images}) == 60
    assert any("429" in event.reason for event in pair.events)


def test_a_deadline_leaves_a_task_that_can_be_collected_later():
    pair = FaceToFace(seconds=100.0)

    with pytest.raises(TaskTimeoutError) as caught:
        pair.generate("a fox", width=64, height=64, timeout=10)
    image = pair.download(caught.value.task)

    assert image.width == 64
    assert len(posts(pair)) == 1


def test_a_link_that_died_is_renewed_by_the_service():
    pair = FaceToFace()
    status = pair.wait(pair.submit("a fox", width=64, height=64))
    pair.clock.sleep(601)
    pair.journal.clear()

    assert pair.download(status).width == 64
    assert ["get_result" in http.url for http in pair.journal] == [False, True, False]


def test_a_submit_that_never_left_turns_to_another_region():
    steps = flow.submit(
        get_model("flux-2-pro"), Request("flux-2-pro", {"prompt": "x"}), BASE, others=("https://api.eu.bfl.ai",)
    )
    first = next(steps)
    second = steps.throw(ConnectionFailedError("no route"))
    third = steps.throw(ConnectionFailedError("no route"))

    assert first.request.url.startswith(f"{BASE}/")
    assert second.request.url.startswith("https://api.eu.bfl.ai/")
    assert third.request.url.startswith(f"{BASE}/")


def test_a_glance_polls_once_and_raises_no_ending():
    steps = flow.glance(TASK, BASE)
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(Response(200, {}, b'{"id":"abc","status":"Error"}'))
    assert done.value.value.outcome is Outcome.FAILED


@pytest.mark.parametrize("seen", [LOST, AWAY, TaskTimeoutError("Too late."), Response(502, {}, b"<html>")])
def test_a_glance_that_sees_nothing_says_so(seen):
    talk = Talk(flow.glance(TASK, BASE), seen)

    assert (talk.result, talk.error, talk.goes_on) == (None, None, False)


REFUSED = ConnectionFailedError("its certificate was refused", permanent=True)
HUGE = NoResponseError("the answer is larger than 134217728 bytes", permanent=True)


@pytest.mark.parametrize("play", [submitting, waiting, downloading, asking])
def test_what_only_a_person_can_mend_ends_every_step_at_once(play):
    talk = play(REFUSED)

    assert talk.error is REFUSED
    assert len(talk.calls) == 1


@pytest.mark.parametrize("play", [waiting, downloading, asking])
def test_an_answer_above_the_size_limit_ends_a_step_at_once(play):
    talk = play(HUGE)

    assert talk.error is HUGE
    assert len(talk.calls) == 1


def test_an_answer_above_the_size_limit_leaves_a_submit_in_doubt():
    talk = submitting(HUGE)

    assert type(talk.error) is InDoubtError
    assert "larger than 134217728 bytes" in str(talk.error)


def test_what_only_a_person_can_mend_keeps_the_task_that_was_paid_for():
    assert waiting(ConnectionFailedError("refused", permanent=True)).error.task == TASK


@pytest.mark.parametrize("result", [None, {"sample": None}, {}, "https://a/b.png", {"sample": ["https://a"]}])
def test_ready_without_an_image_ends_after_five_polls_with_what_came(result):
    talk = waiting(*[told("Ready", result=result)] * 9)

    assert type(talk.error) is TaskFailedError
    assert len(talk.calls) == 5
    assert talk.error.task == TASK
    assert f"its result is {json.dumps(result) if not isinstance(result, str) else result}" in str(talk.error)
    assert sum(talk.pauses) < 10


def test_ready_without_an_image_shows_no_signed_link():
    talk = waiting(*[told("Ready", result={"sample": [LINK], "more": "x" * 5000})] * 5)

    assert "sig=secret" not in str(talk.error)
    assert len(str(talk.error)) < 450


def test_a_link_that_comes_a_few_polls_after_ready_is_followed():
    empty = told("Ready", result=None)

    assert waiting(empty, empty, empty, ready()).result == READY
    assert waiting(*[empty] * 4, told("Pending"), *[empty] * 4, ready()).result == READY


def test_a_word_that_is_not_known_is_named_when_time_is_up():
    talk = waiting(told("Paused"), TaskTimeoutError("Too late."))

    assert str(talk.error).startswith("Too late. The last status was 'Paused', which this release does not know. The ")
    assert talk.error.task == TASK
    assert talk.error.__suppress_context__


def test_the_last_trouble_is_named_when_time_is_up():
    talk = waiting(told("Paused"), says({"detail": "oops"}, 500), TaskTimeoutError("Too late."))

    assert "Too late. The last poll failed: The service answered 500: oops." in str(talk.error)


def test_a_known_word_needs_no_mention_when_time_is_up():
    talk = waiting(LOST, told("Paused"), told("Pending"), TaskTimeoutError("Too late."))

    assert str(talk.error).startswith("Too late. The task may still finish: collect it later")


def test_an_endless_word_is_cut_when_time_is_up():
    talk = waiting(told("x" * 5000), TaskTimeoutError("Too late."))

    assert len(str(talk.error)) < 500


@pytest.mark.parametrize("head", ["data:image/png;base64,", ""])
def test_an_image_in_the_result_itself_is_taken_without_a_call(head):
    sample = head + base64.b64encode(PNG).decode()
    status = waiting(told("Ready", result={"sample": sample})).result

    talk = downloading(status=status)

    assert talk.result == PNG
    assert talk.calls == []


def test_a_broken_image_in_the_result_is_asked_for_once_more():
    broken = f"data:image/png;base64,{base64.b64encode(PNG[:-9]).decode()}"
    whole = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    status = Status(TASK, "Ready", Outcome.READY, broken)

    assert downloading(ready(whole), status=status).result == PNG
    assert downloading(ready(LINK), IMAGE, status=status).result == PNG
    talk = downloading(ready(broken), status=status)
    assert type(talk.error) is TaskFailedError
    assert "cut off or damaged" in str(talk.error)
    assert talk.error.task == TASK


def test_no_message_repeats_more_than_200_characters_of_a_url():
    endless = "https://evil.example/" + "x" * 5000

    assert len(str(waiting(task=Task("abc", endless)).error)) < 350
    assert len(str(downloading(status=Status(TASK, "Ready", Outcome.READY, "ftp://" + "x" * 5000)).error)) < 350
    late = waiting(TaskTimeoutError("Too late."), task=Task("abc", f"{BASE}/v1/get_result?id=" + "x" * 5000))
    assert "its id and its polling_url" in str(late.error)
    assert len(str(late.error)) < 350


def test_a_balance_is_read_until_it_stands_still():
    talk = Talk(flow.ask_steady_credits(BASE, 2.0), *[says({"credits": left}) for left in (10, 7, 4, 4)])

    assert talk.result == 4
    assert talk.pauses == [0, 2, 2, 2]
