"""What an application may use, and what it is told where it may not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fluxwerk.drive import drive
from fluxwerk.server.errors import ServerError
from fluxwerk.server.state import keys
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.application import Application
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE
from fluxwerk.types import HttpRequest
from support.asking import PRO, ask, face, json_of, poll

MAX = "/v1/flux-2-max"


def opened(of: FaceToFace, name: str = "shop", **terms) -> str:
    """Add an application, and return its key."""
    key = keys.make()
    of.state.accounts.applications.add(Application(name, **terms), keys.describe(key))
    return key


def submit(of: FaceToFace, key: str, path: str = PRO, **headers: str):
    return ask(of, "POST", path, {"prompt": "x", "width": 64, "height": 64}, key, **headers)


def queued(seconds: float = 5.0, queue: int = 100, **terms) -> tuple[FaceToFace, str]:
    """Return a server whose tasks take a while, and the key of an application with one slot."""
    of = face(seconds=seconds, accounts=Accounts(queue=queue))
    return of, opened(of, slots=1, **terms)


def test_a_budget_ends_with_the_day_on_which_it_is_renewed():
    of = face()
    key = opened(of, budget=Decimal(7), period="month")
    assert [submit(of, key).status for _ in range(3)] == [200, 200, 402]
    body = json_of(submit(of, key))
    assert body["message"] == (
        "Insufficient credits: this costs 3, 1 are left of 7 a month; the next month begins on 2025-12-01 in UTC"
    )
    assert json_of(ask(of, "GET", "/v1/credits", key=key))["credits"] == 1
    of.clock.sleep(7 * 86_400)
    assert submit(of, key).status == 200
    assert json_of(ask(of, "GET", "/v1/credits", key=key))["credits"] == 4


def test_credits_come_back_to_the_day_on_which_they_were_spent():
    of = face()
    key = opened(of, budget=Decimal(7), period="day")
    ask(of, "POST", "/v1/flux-2-pro", {"prompt": "fluxwerk:error"}, key)
    submit(of, key)
    (row,) = of.state.accounts.applications.spend()
    assert (row.name, row.model, row.tasks, row.credits) == ("shop", "flux-2-pro", 2, 3)
    assert json_of(ask(of, "GET", "/v1/credits", key=key))["credits"] == 4


def test_a_model_that_was_not_given_is_refused_with_those_that_were():
    of = face()
    key = opened(of, models=frozenset({"flux-2-pro", "flux-2-klein-4b"}))
    assert submit(of, key).status == 200
    answer = submit(of, key, MAX)
    assert (answer.status, json_of(answer)["message"]) == (
        403,
        "This key may not use flux-2-max; it may use flux-2-klein-4b, flux-2-pro. Ask the operator for more.",
    )


def test_an_application_has_its_own_number_of_slots():
    of = face(seconds=5)
    key = opened(of, slots=2)
    answers = [submit(of, key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["2", "2", "2"]


def test_submits_come_at_most_at_their_rate():
    of = face()
    key = opened(of, rate=2)
    answers = [submit(of, key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert json_of(answers[-1])["message"] == "Too many submits: at most 2 a minute"
    of.clock.sleep(float(answers[-1].headers["retry-after"]))
    assert submit(of, key).status == 200
    assert of.state.accounts.applications.spend()[0].tasks == 3


def test_a_submit_that_comes_too_early_is_refused_before_its_body():
    of = face()
    key = opened(of, rate=1)
    submit(of, key)
    with pytest.raises(ServerError, match="at most 1 a minute"):
        of.router.admit(HttpRequest("POST", f"{BASE}{PRO}", headers={"x-key": key}))


@pytest.mark.parametrize("is_admitted", [False, True])
def test_a_submit_that_comes_too_early_fetches_no_image(is_admitted):
    of = face()
    key = opened(of, rate=1)
    body = b'{"prompt": "x", "input_image": "https://elsewhere.example/fox.png"}'
    request = HttpRequest("POST", f"{BASE}{PRO}", body, headers={"x-key": key})
    admission = of.router.admit(request) if is_admitted else None
    submit(of, key)
    answer = drive(of.router.answer(request, admission), unreachable, clock=of.clock)
    assert (answer.status, json_of(answer)["message"]) == (429, "Too many submits: at most 1 a minute")


def unreachable(request: HttpRequest, _: float | None):
    raise AssertionError(f"{request.url} was fetched")


@pytest.mark.parametrize(("terms", "refusal"), [({"slots": 1}, 429), ({"budget": Decimal(3)}, 402)])
def test_of_two_submits_that_were_admitted_to_what_is_left_one_is_refused(terms, refusal):
    of = face(seconds=5)
    key = opened(of, **terms)
    request = HttpRequest("POST", f"{BASE}{PRO}", b'{"prompt": "x", "width": 64, "height": 64}', headers={"x-key": key})
    admissions = [of.router.admit(request) for _ in range(2)]
    answers = [drive(of.router.answer(request, one), of._fetch, clock=of.clock) for one in admissions]
    assert [answer.status for answer in answers] == [200, refusal]
    assert of.state.accounts.applications.spend()[0].tasks == 1


def test_a_body_is_as_large_as_its_application_allows():
    of = face()
    small, usual = opened(of, largest_body=1000), opened(of, "blog")
    asked = [HttpRequest("POST", f"{BASE}{PRO}", headers={"x-key": key}) for key in (small, usual)]
    most = [of.router.admit(one).largest for one in asked]
    assert most[0] == 1000
    assert most[1] > 200_000_000


def test_a_body_that_is_longer_than_its_application_allows_is_refused():
    """A short body is read before its account is known, and its length is judged then."""
    of = face()
    key = opened(of, largest_body=10)
    assert submit(of, key).status == 413
    assert of.state.accounts.applications.spend() == []


def test_a_state_with_an_application_is_closed_to_strangers():
    of = face()
    assert submit(of, "stranger").status == 200
    key = opened(of)
    assert [submit(of, one).status for one in ("stranger", key)] == [403, 200]
    of.state.accounts.applications.revoke("shop")
    assert [submit(of, one).status for one in ("stranger", key)] == [403, 403]


def test_both_keys_of_an_application_are_one_account():
    of = face()
    old = opened(of)
    new = keys.make()
    of.state.accounts.applications.rotate("shop", keys.describe(new), 60)
    task = json_of(submit(of, old))
    assert [row["id"] for row in json_of(ask(of, "GET", "/v1/tasks", key=new))["tasks"]] == [task["id"]]
    assert json_of(ask(of, "GET", "/v1/credits", key=new))["credits"] == 1_000_000 - 3


def test_an_application_sees_lists_and_cancels_nothing_of_anothers():
    of = face(seconds=5)
    shop, blog = opened(of), opened(of, "blog")
    task = json_of(submit(of, shop))
    where = f"/v1/tasks/{task['id']}"
    assert json_of(ask(of, "GET", "/v1/tasks", key=blog))["tasks"] == []
    assert [ask(of, method, where, key=blog).status for method in ("GET", "DELETE")] == [404, 404]
    assert [ask(of, method, where, key=shop).status for method in ("GET", "DELETE")] == [200, 200]


def test_the_same_idempotency_key_of_another_application_is_another_task():
    of = face(keeps_keys=True)
    shop, blog = opened(of), opened(of, "blog")
    tasks = {json_of(submit(of, key, **{"idempotency-key": "one"}))["id"] for key in (shop, blog, shop)}
    assert len(tasks) == 2


def test_an_image_is_kept_as_long_as_its_application_says():
    of = face()
    short, usual = opened(of, keep=10.0), opened(of, "blog")
    tasks = [submit(of, short), submit(of, usual)]
    of.clock.sleep(11)
    assert [poll(of, task)["status"] for task in tasks] == ["Task not found", "Ready"]


def test_a_task_beyond_the_slots_tells_its_place():
    of, key = queued()
    tasks = [submit(of, key) for _ in range(3)]
    assert [poll(of, task)["details"] for task in tasks] == [
        None,
        {"position": 1, "estimate_seconds": None},
        {"position": 2, "estimate_seconds": None},
    ]
    assert {poll(of, task)["status"] for task in tasks} == {"Pending"}


def test_a_task_that_waited_is_rendered_when_a_slot_is_free():
    of, key = queued()
    tasks = [submit(of, key) for _ in range(3)]
    of.clock.sleep(4.9)
    assert poll(of, tasks[1])["details"]["position"] == 1
    of.clock.sleep(2.0)
    assert [poll(of, task)["status"] for task in tasks] == ["Ready"] * 3


def test_a_full_queue_is_a_429_with_the_pace_of_the_endings():
    of, key = queued(queue=2)
    for _ in range(3):
        assert submit(of, key).status == 200
    answer = submit(of, key)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert "at most 1 of standard at a time, and 2 more may wait" in json_of(answer)["message"]
    of.clock.sleep(8.0)
    poll(of, answer := submit(of, key))
    answer = submit(of, key)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")


def test_a_priority_is_a_small_whole_number():
    of, key = queued()
    first, usual = submit(of, key), submit(of, key)
    urgent = submit(of, key, **{"x-fluxwerk-priority": "10"})
    assert [poll(of, task)["details"] for task in (first, urgent, usual)] == [
        None,
        {"position": 1, "estimate_seconds": None},
        {"position": 2, "estimate_seconds": None},
    ]
    for wrong in ("high", "101", "-101", "1.5", ""):
        assert submit(of, key, **{"x-fluxwerk-priority": wrong}).status == 422
