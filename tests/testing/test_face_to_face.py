"""The whole conversation of client and server on a pretend clock: hours of it in no time."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxwerk import (
    ConnectionFailedError,
    FluxwerkError,
    Image,
    InDoubtError,
    InsufficientCreditsError,
    InvalidUsageError,
    NoResponseError,
    RateLimitError,
    TaskFailedError,
    TaskNotFoundError,
    TaskTimeoutError,
)
from fluxwerk.polling.history import PollingHistory
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace, PretendClock
from fluxwerk.testing.face_to_face import BASE, blank
from fluxwerk.types import HttpRequest, Response
from support.asking import kept


def kinds(face: FaceToFace) -> list[str]:
    return [event.kind for event in face.events if event.kind != "polled"]


def posts(face: FaceToFace) -> int:
    return sum(request.method == "POST" for request in face.journal)


def test_a_prompt_becomes_an_image(face_to_face):
    image = face_to_face.generate("a fox", width=128, height=64, seed=5)
    assert (image.data, image.width, image.height) == (blank(128, 64), 128, 64)
    assert (image.seed, image.cost, image.prompt, image.model, image.engine) == (5, 3, "a fox", "flux-2-pro", "blank")
    assert kinds(face_to_face) == ["submitted", "ready", "downloaded"]


def test_generate_is_submit_wait_and_download():
    step, whole = FaceToFace(), FaceToFace()
    assert step.download(step.wait(step.submit("x", seed=1))) == whole.generate("x", seed=1)
    assert step.download(step.submit("x", seed=1)).data == whole.generate("x", seed=1).data


def test_an_hour_of_waiting_passes_in_no_time():
    face = FaceToFace(seconds=3600, timeout=4000)
    began = face.clock.now()
    assert face.generate("x").cost == 3
    assert 3600 <= face.clock.now() - began < 3603


def test_patience_ends_at_the_deadline_with_the_task_to_collect_later():
    face = FaceToFace(seconds=60)
    began = face.clock.now()
    with pytest.raises(TaskTimeoutError) as caught:
        face.generate("x", timeout=30)
    assert face.clock.now() - began <= 30
    assert face.download(caught.value.task).cost == 3
    assert posts(face) == 1


def test_a_full_house_is_waited_for():
    face = FaceToFace(seconds=5)
    results = face.together(face.begin("x", seed=n) for n in range(100))
    assert [image.seed for image in results] == list(range(100))
    assert sum(event.kind == "retrying" for event in face.events) > 0
    assert face.credits() == 1_000_000 - 300


@settings(max_examples=20)
@given(st.integers(1, 60), st.floats(0, 20))
def test_every_job_is_paid_once_and_at_most_24_are_in_flight(count, seconds):
    """Every job of many is paid once and never more than 24 are in flight."""
    most = 0

    def watch(_: HttpRequest, response: Response) -> Response:
        nonlocal most
        now = face.clock.now()
        most = max(most, sum(not job.has_ended(now) for job in face.state.tasks.all(now)))
        return response

    face = FaceToFace(seconds=seconds, intercept=watch)
    results = face.together(face.begin("x") for _ in range(count))
    assert all(isinstance(result, Image) for result in results)
    assert len(kept(face.state)) == count
    assert most <= 24


def test_a_deadline_for_many_ends_those_that_are_late():
    face = FaceToFace(seconds=5)
    results = face.together((face.begin("x") for _ in range(30)), timeout=7)
    assert sum(isinstance(result, Image) for result in results) == 24
    assert {type(result) for result in results} == {Image, TaskTimeoutError}


def test_empty_pockets_end_at_once():
    face = FaceToFace(accounts=Accounts(credit=Decimal(2)))
    with pytest.raises(InsufficientCreditsError, match=r"costs 3(\.0)?, 2 are left.*Add credits"):
        face.generate("x")
    assert posts(face) == 1


def test_a_broken_engine_costs_nothing():
    class Broken:
        name = "broken"

        def render(self, _):
            raise RuntimeError("no paint left")

    face = FaceToFace(engine=Broken(), accounts=Accounts(credit=Decimal(3)))
    with pytest.raises(TaskFailedError, match="no paint left"):
        face.generate("x")
    assert face.credits() == 3


def losing(method: str, loss: FluxwerkError, times: int = 1):
    left = [times]

    def intercept(request: HttpRequest, response: Response) -> Response:
        if request.method == method and left[0]:
            left[0] -= 1
            raise loss
        return response

    return intercept


def test_a_lost_answer_to_a_submit_is_in_doubt_and_not_repeated():
    face = FaceToFace(intercept=losing("POST", NoResponseError("gone")))
    with pytest.raises(InDoubtError, match="may have been charged"):
        face.generate("x")
    assert posts(face) == 1
    assert face.credits() == 1_000_000 - 3


def test_lost_polls_and_downloads_are_repeated():
    face = FaceToFace(intercept=losing("GET", NoResponseError("gone"), 5))
    assert face.generate("x").cost == 3
    assert posts(face) == 1


def test_what_never_left_is_repeated():
    face = FaceToFace(intercept=losing("POST", ConnectionFailedError("no route"), 4))
    assert face.generate("x").cost == 3


def test_a_dead_link_is_replaced_by_a_poll():
    def linger(request: HttpRequest, response: Response) -> Response:
        if "get_result" in request.url and len(face.journal) == 2:
            face.clock.sleep(700)
        return response

    face = FaceToFace(intercept=linger, timeout=2000)
    assert face.generate("x").cost == 3


def test_what_the_server_has_forgotten_is_said():
    face = FaceToFace()
    task = face.submit("x")
    face.clock.sleep(4000)
    with pytest.raises(TaskNotFoundError):
        face.wait(task)


def test_a_service_that_stays_busy_is_reported_in_the_end():
    face = FaceToFace(intercept=lambda *_: Response(503, {"retry-after": "999"}, b""))
    with pytest.raises(RateLimitError):
        face.generate("x")


def test_images_given_by_url_are_fetched_by_the_server_alone():
    urls: dict[str, bytes] = {}
    face = FaceToFace(urls=urls)
    urls["https://host.test/x.png"] = blank(640, 480)
    image = face.generate("x", images=["https://host.test/x.png"])
    assert (image.width, image.height, image.cost) == (640, 480, Decimal("4.5"))
    assert not any("host.test" in request.url for request in face.journal)


def test_a_mistake_reaches_no_server():
    face = FaceToFace()
    with pytest.raises(InvalidUsageError):
        face.generate("x", steps=3)
    assert face.journal == []


def test_every_run_is_the_same():
    assert FaceToFace().generate("x").task == FaceToFace().generate("x").task


def test_many_flows_keep_their_losses_apart():
    face = FaceToFace(intercept=losing("POST", NoResponseError("gone")))
    first, second = face.together(face.begin("x") for _ in range(2))
    assert (type(first), type(second)) == (InDoubtError, Image)


def test_it_is_closed_like_any_client():
    with FaceToFace() as face:
        assert face.access.base == BASE


def test_the_pretend_clock_never_runs_back():
    clock = PretendClock(100.0)
    clock.jump_to(50.0)
    assert clock.now() == 100.0
    clock.sleep(3)
    assert clock.now() == 103.0


def test_many_images_face_to_face_keep_within_the_slots():
    """Many images face to face keep within the slots and take exactly their time."""
    busy = []

    def note(_request, response):
        left, most = (int(response.headers.get(f"x-ratelimit-{name}", 0)) for name in ("remaining", "limit"))
        busy.append(most - left)
        return response

    pair = FaceToFace(seconds=2.0, slots=3, intercept=note)
    began = pair.clock.now()
    made = list(pair.generate_many([f"a fox {number}" for number in range(7)], width=64, height=64))

    assert {one.request for one in made} == {f"a fox {number}" for number in range(7)}
    assert all(one.image for one in made)
    assert max(busy) == 3
    assert 6.0 <= pair.clock.now() - began < 8.5


def test_the_next_submit_leaves_when_a_slot_is_free():
    """The next submit leaves in the moment in which a slot is seen to be free."""
    moments = []

    def note(request, response):
        moments.append((pair.clock.now(), request.method, b'"Ready"' in response.body))
        return response

    pair = FaceToFace(seconds=lambda order: 1.0 + order.seed / 10, slots=4, intercept=note)
    wanted = [pair.request("a fox", width=64, height=64, seed=number) for number in range(12)]
    assert all(made.image for made in pair.generate_many(wanted))
    freed = sorted(moment for moment, _, ready in moments if ready)
    refilled = sorted(moment for moment, method, _ in moments if method == "POST")[4:]

    assert refilled == freed[:8]


def test_many_face_to_face_outlast_a_busy_service_and_a_lost_line():
    rules = [
        FaultRule(on="submit", do="status", status=429, retry_after=5, nth=2),
        FaultRule(on="submit", do="reset", nth=4),
        FaultRule(on="poll", do="reset", nth=3),
    ]
    pair = FaceToFace(seconds=1.0, slots=2, trouble=rules)
    made = list(pair.generate_many(["one", "two", "three", "four", "five"], width=64, height=64))

    assert sum(one.image is not None for one in made) == 4
    assert [type(one.error) for one in made if one.error] == [InDoubtError]
    assert posts(pair) == 6


def test_many_face_to_face_give_up_at_the_deadline():
    pair = FaceToFace(seconds=1000.0, slots=2)
    made = list(pair.generate_many(["one", "two", "three"], width=64, height=64, timeout=30))

    assert [type(one.error) for one in made] == [TaskTimeoutError] * 3
    assert posts(pair) == 2


def test_learned_polls_use_slots_better_with_no_more_polls():
    """Learned polls use the slots better than unlearned ones and no more polls."""
    dice = random.Random(4)
    drawn = [dice.lognormvariate(-0.125, 0.5) for _ in range(150)]

    def play(history, rounds):
        pair = FaceToFace(seconds=lambda order: drawn[order.seed], history=history)
        for _ in range(rounds):
            began, before = pair.clock.now(), len(pair.journal)
            wanted = [pair.request("a fox", width=64, height=64, seed=number) for number in range(150)]
            assert all(made.image for made in pair.generate_many(wanted))
        return pair.clock.now() - began, sum("get_result" in http.url for http in pair.journal[before:])

    slow, many = play(PollingHistory(learning=False), 1)
    quick, few = play(PollingHistory(), 2)

    assert quick < 0.9 * slow
    assert few < 7 * 150 < 1.5 * many
