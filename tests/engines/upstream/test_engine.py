"""The gateway's engine in front of a real server that plays the service: what is paid once, and how orders end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Self
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn

from fluxwerk import AsyncClient, Client, Task
from fluxwerk.engines import Canvas, Order, OrderEndedError
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.engines.upstream.engine import UpstreamEngine
from fluxwerk.engines.upstream.journal import MemoryJournal, UpstreamResult
from fluxwerk.engines.upstream.request import write_request
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol.idempotency import key_of
from fluxwerk.protocol.wire import dump
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.loopback import listen, loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.types import Pool
from fluxwerk.webhook import Receiver
from support.images import png

KEY = "the-gateways-key"
ORDER = Order("flux-2-pro", "a fox", 7, 64, 64, "png", id="order-1", asked={"width": 64, "height": 64, "seed": 7})


class Ledger(MemoryJournal):
    """A journal that remembers what was said at each end."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, UpstreamResult] = {}
        self.any_end = asyncio.Event()

    async def end(self, order: str, result: UpstreamResult) -> None:
        self.ended.setdefault(order, result)
        self.any_end.set()
        await super().end(order, result)


class Scene:
    """A service with its troubles, and a gateway's engine in front of it."""

    def __init__(self, *rules: FaultRule, credit: int = 1000, slow: float = 0.0, keeps_keys: bool = False) -> None:
        self._stack = ExitStack()
        self.accounts = Accounts([KEY], Decimal(credit))
        self.base = self._stack.enter_context(
            loopback(accounts=self.accounts, trouble=rules, pace=lambda _: slow, strict=True, keeps_keys=keeps_keys)
        )
        self.journal = Ledger()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def engine(self, key: str = KEY, **how) -> UpstreamEngine:
        return UpstreamEngine(AsyncClient(key, base_url=self.base), self.journal, **how)

    def paint(self, *orders: Order, engine: UpstreamEngine | None = None) -> list[bytes | OrderEndedError]:
        async def run() -> list[bytes | OrderEndedError]:
            painter = engine or self.engine()
            async with painter.open():
                work = (painter.paint(order, lambda _: None) for order in orders)
                return await asyncio.gather(*work, return_exceptions=True)

        return asyncio.run(run())

    @property
    def tasks(self) -> list:
        return self.accounts.tasks.all(0.0)

    @property
    def spent(self) -> Decimal:
        with Client(KEY, base_url=self.base) as client:
            return 1000 - client.credits()


def orders(count: int) -> Iterable[Order]:
    fields = {"width": 64, "height": 64}
    return [
        Order("flux-2-pro", "a fox", n, 64, 64, "png", id=f"order-{n}", asked={**fields, "seed": n})
        for n in range(count)
    ]


def test_an_order_is_made_by_the_service_as_it_was_asked_for():
    with Scene() as scene:
        asked = {**ORDER.asked, "output_format": "png", "safety_tolerance": 5, "user": "me"}
        [image] = scene.paint(Order("flux-2-pro", "a fox", 7, 64, 64, "png", id="order-1", asked=asked))

        [task] = scene.tasks
        assert image == OfflineEngine().render(Order("flux-2-pro", "a fox", 7, 64, 64, "png"))
        assert task.order.asked == asked
        assert scene.journal.ended["order-1"] == UpstreamResult(Decimal(3), 7, "a fox", "offline")
        assert scene.spent == 3


def test_a_seed_that_the_gateway_drew_is_not_the_clients_wish():
    with Scene() as scene:
        scene.paint(Order("flux-2-pro", "a fox", 7, 64, 64, "png", id="order-1", asked={"width": 64, "height": 64}))

        [task] = scene.tasks
        assert "seed" not in task.order.asked
        assert scene.journal.ended["order-1"].seed == task.order.seed


def test_images_go_upstream_as_the_options_they_came_in():
    pictures = png(64, 64), png(72, 64)
    two = Order("flux-2-pro", "x", 1, 64, 64, id="a", references=pictures, names=("input_image", "input_image_3"))
    fill = Order("flux-pro-1.0-fill", "", 1, 64, 64, id="b", canvas=Canvas(*pictures))
    many = Order("flux-3-image", "x", 1, 64, 64, id="c", references=pictures, names=("images", "images"))

    assert list(write_request(two)[1].fields) == ["prompt", "input_image", "input_image_3"]
    assert list(write_request(fill)[1].fields) == ["image", "mask"]
    assert len(write_request(many)[1].fields["images"]) == 2


def test_a_submit_whose_answer_is_lost_is_in_doubt_and_not_repeated():
    with Scene(FaultRule(on="submit", do="reset", accepted=True, first=1)) as scene:
        [ended] = scene.paint(ORDER)

        assert isinstance(ended, OrderEndedError)
        assert (ended.word, ended.details["error"], ended.paid) == ("Error", "in_doubt", True)
        assert list(scene.journal.doubts()) == ["order-1"]
        assert len(scene.tasks) == 1


def test_an_order_in_doubt_stays_in_doubt_after_a_restart():
    with Scene(FaultRule(on="submit", do="reset", accepted=True, first=1)) as scene:
        scene.paint(ORDER)
        [ended] = scene.paint(ORDER)

        assert ended.details["error"] == "in_doubt"
        assert len(scene.tasks) == 1


def test_an_intent_without_an_answer_is_in_doubt_after_a_crash():
    with Scene() as scene:
        asyncio.run(scene.journal.intend(ORDER.id, Pool("standard", 24)))
        [ended] = scene.paint(ORDER)

        assert ended.details["error"] == "in_doubt"
        assert "stopped before" in scene.journal.doubts()["order-1"]
        assert scene.tasks == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_service_that_keeps_keys_is_asked_again_and_charges_once(accepted):
    with Scene(FaultRule(on="submit", do="reset", accepted=accepted, first=1), keeps_keys=True) as scene:
        [image] = scene.paint(ORDER)

        assert isinstance(image, bytes)
        assert len(scene.tasks) == 1
        assert scene.journal.doubts() == {}


def test_after_a_crash_a_service_that_keeps_keys_names_the_task_that_it_took():
    with Scene(keeps_keys=True) as scene:
        model, request = write_request(ORDER)
        headers = {"x-key": KEY, "idempotency-key": key_of(ORDER.id)}
        httpx2.post(f"{scene.base}{model.path}", content=dump(request.fields), headers=headers).raise_for_status()
        asyncio.run(scene.journal.intend(ORDER.id, Pool("standard", 24)))
        [image] = scene.paint(ORDER)

        assert isinstance(image, bytes)
        assert len(scene.tasks) == 1


def test_after_a_crash_a_key_that_was_kept_too_long_ago_proves_nothing():
    with Scene(keeps_keys=True) as scene:
        scene.journal._now = lambda: 0.0
        asyncio.run(scene.journal.intend(ORDER.id, Pool("standard", 24)))
        [ended] = scene.paint(ORDER)

        assert ended.details["error"] == "in_doubt"
        assert scene.tasks == []


def test_after_a_crash_what_left_on_another_account_is_in_doubt_and_not_bought_on_this_one():
    with Scene(keeps_keys=True) as scene:
        asyncio.run(scene.journal.intend(ORDER.id, Pool("standard", 24)))
        scene.journal._entries[ORDER.id] = replace(scene.journal._entries[ORDER.id], foreign=True)
        [ended] = scene.paint(ORDER)

        assert ended.details["error"] == "in_doubt"
        assert scene.tasks == []


def test_a_task_that_was_accepted_before_a_crash_is_collected_and_not_paid_again():
    with Scene() as scene:
        answer = httpx2.post(f"{scene.base}/v1/flux-2-pro", json={"prompt": "a fox"}, headers={"x-key": KEY}).json()
        asyncio.run(scene.journal.intend(ORDER.id, Pool("standard", 24)))
        asyncio.run(scene.journal.accept(ORDER.id, Task(answer["id"], answer["polling_url"], "flux-2-pro")))
        [image] = scene.paint(ORDER)

        assert isinstance(image, bytes)
        assert len(scene.tasks) == 1


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(on="submit", do="status", status=429, retry_after=0, first=2),
        FaultRule(on="submit", do="status", status=503, retry_after=0, first=1),
        FaultRule(on="poll", do="status", status=500, first=1),
        FaultRule(on="poll", do="reset", first=1),
        FaultRule(on="poll", do="expire", first=1),
        FaultRule(on="download", do="cut", first=1),
        FaultRule(on="download", do="status", status=500, first=1),
    ],
    ids=lambda rule: f"{rule.on}-{rule.do}-{rule.status}",
)
def test_what_passes_is_waited_out_and_paid_once(rule):
    with Scene(rule) as scene:
        [image] = scene.paint(ORDER)

        assert image == OfflineEngine().render(Order("flux-2-pro", "a fox", 7, 64, 64, "jpeg"))
        assert len(scene.tasks) == 1
        assert scene.journal.doubts() == {}


@pytest.mark.parametrize(("stage", "cost"), [("request", 0), ("content", 3)])
def test_moderation_keeps_its_stage_details_and_cost(stage, cost):
    rule = FaultRule(on="submit", do="moderate", stage=stage, reasons=("Violence", "Blood"))
    with Scene(rule) as scene:
        [ended] = scene.paint(ORDER)

        assert ended.word == f"{stage.capitalize()} Moderated"
        assert ended.details == {"Moderation Reasons": ["Violence", "Blood"]}
        assert scene.journal.ended["order-1"].cost == cost


def test_an_error_of_the_service_stays_an_error_with_its_details():
    with Scene(FaultRule(on="submit", do="fail")) as scene:
        [ended] = scene.paint(ORDER)

        assert (ended.word, ended.details["error"]) == ("Error", "internal_error")
        assert scene.journal.ended["order-1"].cost == 0


def test_an_account_without_credits_charges_nothing_and_says_so():
    with Scene(credit=2) as scene:
        engine = scene.engine()
        [ended] = scene.paint(ORDER, engine=engine)

        assert (ended.details["error"], ended.paid) == ("insufficient_credits", False)
        assert engine.health().word == "degraded"
        assert KEY not in str(engine.health())


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (FaultRule(on="submit", do="status", status=429, retry_after=0, first=1), "RateLimitError"),
        (FaultRule(on="submit", do="reset", accepted=True, first=1), "InDoubtError"),
        (FaultRule(on="submit", do="fail"), "TaskFailedError"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.do,
)
def test_what_the_service_did_wrong_is_counted_by_its_kind(rule, kind):
    with Scene(rule) as scene:
        engine = scene.engine()
        scene.paint(ORDER, engine=engine)

        assert engine.errors == {kind: 1}


def test_a_key_that_the_service_refuses_is_the_operators_matter():
    with Scene() as scene:
        [ended] = scene.paint(ORDER, engine=scene.engine("another-key"))

        assert (ended.details["error"], ended.paid) == ("upstream_refused", False)


def test_a_request_that_the_service_refuses_is_an_error_that_names_the_field():
    with Scene() as scene:
        [ended] = scene.paint(Order("flux-2-pro", "x", 1, 64, 64, id="a", asked={"width": 65}))

        assert (ended.details["error"], ended.paid) == ("invalid_request", False)
        assert "width" in ended.details["message"]


def test_never_more_tasks_are_in_flight_than_the_account_has_slots():
    with Scene(FaultRule(on="submit", do="status", status=500, prompt="never"), slow=0.2) as scene:
        images = scene.paint(*orders(60))

        assert all(isinstance(image, bytes) for image in images)
        assert len(scene.tasks) == 60
        assert httpx2.get(f"{scene.base}/metrics").text.count('status="429"') == 0


class NotingClient(AsyncClient):
    """A client that notes what it sends: submits, polls and downloads."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.sent: list[str] = []

    async def send(self, request, budget=None):
        path = urlsplit(request.url).path
        self.sent.append(request.method if request.method == "POST" else path.split("/")[1])
        return await super().send(request, budget)


def test_an_order_whose_task_has_ended_says_so_before_it_downloads():
    with Scene() as scene:
        client, told = NotingClient(KEY, base_url=scene.base), []

        async def run() -> bytes:
            engine = UpstreamEngine(client, scene.journal)
            async with engine.open():
                return await engine.paint(ORDER, lambda progress: told.append((progress, "results" in client.sent)))

        assert asyncio.run(run())
        assert [(progress.share, begun) for progress, begun in told if progress.is_fetched] == [(1.0, False)]


def test_a_submit_that_waits_for_a_slot_leaves_before_the_download_of_what_had_it():
    with Scene(slow=0.2) as scene:
        client = NotingClient(KEY, base_url=scene.base)
        images = scene.paint(*orders(25), engine=UpstreamEngine(client, scene.journal))

        assert all(isinstance(image, bytes) for image in images)
        last_submit = max(number for number, what in enumerate(client.sent) if what == "POST")
        assert client.sent.count("POST") == 25
        assert client.sent.index("results") > last_submit


def test_an_order_that_is_given_up_holds_its_slot_until_the_service_has_ended_it():
    async def run(scene: Scene) -> tuple[list[str], list[str]]:
        engine = scene.engine()
        async with engine.open():
            begun = asyncio.Event()
            painting = asyncio.create_task(engine.paint(ORDER, lambda _: begun.set()))
            await begun.wait()
            painting.cancel()
            await asyncio.wait({painting})
            before = list(scene.journal.ended)
            await scene.journal.any_end.wait()
            return before, list(scene.journal.ended)

    with Scene(slow=0.5) as scene:
        assert asyncio.run(run(scene)) == ([], ["order-1"])
        assert scene.spent == 3


def test_an_order_waits_for_a_service_that_cannot_be_reached_and_then_costs_nothing():
    engine = UpstreamEngine(AsyncClient(KEY, base_url="http://127.0.0.1:9"), MemoryJournal(), patience=0.1)
    with Scene() as scene:
        [ended] = scene.paint(ORDER, engine=engine)

        assert (ended.details["error"], ended.paid) == ("upstream_unavailable", False)


@contextmanager
def listening() -> Iterator[Receiver]:
    """A receiver of the service's webhooks on loopback."""
    with listen("127.0.0.1", 0) as bound:
        receiver = Receiver("s3cret", url=f"http://127.0.0.1:{bound.getsockname()[1]}/hook", token="t0ken")
        server = uvicorn.Server(uvicorn.Config(receiver, log_config=None))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield receiver
        finally:
            server.should_exit = True
            thread.join()


class CountingClient(AsyncClient):
    """A client that counts its polls."""

    polls = 0

    async def send(self, request, budget=None):
        self.polls += "get_result" in request.url
        return await super().send(request, budget)


def test_a_webhook_of_the_service_ends_the_wait_with_few_polls():
    with Scene(slow=1.0) as scene, listening() as receiver:
        client = CountingClient(KEY, base_url=scene.base, history=PollingHistory())
        [image] = scene.paint(ORDER, engine=UpstreamEngine(client, scene.journal, webhook=receiver))

        assert isinstance(image, bytes)
        [task] = scene.tasks
        until = time.monotonic() + 30
        while not task.webhook.attempts and time.monotonic() < until:
            # The service writes the attempt down once it has the receiver's answer.
            [task] = scene.tasks
        assert task.webhook.url == receiver.options["webhook_url"]
        assert [attempt.outcome for attempt in task.webhook.attempts] == ["answered 200"]
        assert client.polls <= 2


def test_a_webhook_that_never_comes_changes_nothing_but_speed():
    receiver, learned = Receiver("s3cret", url="http://127.0.0.1:9/hook"), PollingHistory()
    with Scene() as scene:
        # Who does not know how long tasks take polls behind a webhook after 20 seconds.
        for hook, order in zip((None, None, None, receiver), orders(4), strict=True):
            client = AsyncClient(KEY, base_url=scene.base, history=learned)
            [image] = scene.paint(order, engine=UpstreamEngine(client, scene.journal, webhook=hook))

            assert isinstance(image, bytes)
