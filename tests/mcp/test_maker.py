"""A lost answer is found again and paid once: cancelled calls, killed processes, submits in doubt, refused keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import httpx2
import pytest

from fluxwerk import AsyncClient, InvalidUsageError
from fluxwerk.batch import plan
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.mcp.caps import SpendingCaps
from fluxwerk.mcp.maker import ImageMaker
from fluxwerk.mcp.wish import read_wish
from fluxwerk.polling.history import PollingHistory
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from mcp import MCPError
from support.assistant import client, over_stdio, with_pid

SMALL = {"prompt": "a red fox", "width": 64, "height": 64}
FOX = read_wish({**SMALL, "model": "flux-2-pro"})


def tasks_of(base: str) -> list[dict]:
    return httpx2.get(f"{base}/v1/tasks", headers={"x-key": "a-key"}).json()["tasks"]


def maker_of(base: str, folder: Path, **settings) -> ImageMaker:
    account = AsyncClient("a-key", base_url=base, history=PollingHistory(learning=False))
    return ImageMaker(account, folder, **settings)


async def nothing(*_: object) -> None:
    pass


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


async def make(base: str, folder: Path, wish=FOX, request_id=None, **settings):
    maker = maker_of(base, folder, **settings)
    async with maker.open():
        result = await maker.make(wish, request_id, nothing)
        maker.hand_over(result)
        return result.rows


def test_a_cancelled_call_is_collected_and_found_again(tmp_path):
    async def talk(base):
        maker = maker_of(base, tmp_path)
        submitted = asyncio.Event()

        async def notice(kind, _):
            if kind == "submitted":
                submitted.set()

        async with maker.open():
            call = asyncio.create_task(maker.make(FOX, None, notice))
            await submitted.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            return (await maker.make(FOX, None, nothing)).rows

    with loopback(pace=lambda _: 0.5) as base:
        (row,) = run(talk(base))
        assert row["stage"] == Stage.SAVED
        assert len(tasks_of(base)) == 1


def test_an_image_that_was_handed_over_is_followed_by_another(tmp_path):
    async def talk(base):
        maker = maker_of(base, tmp_path)
        async with maker.open():
            for _ in range(2):
                result = await maker.make(FOX, None, nothing)
                maker.hand_over(result)
            return maker.latest(10)

    with loopback() as base:
        assert [row["id"] for row in run(talk(base))] == [2, 1]
        assert len(tasks_of(base)) == 2


def test_the_same_wish_twice_at_a_time_is_two_images(tmp_path):
    async def talk(base):
        maker = maker_of(base, tmp_path)
        async with maker.open():
            return await asyncio.gather(*(maker.make(FOX, None, nothing) for _ in range(3)))

    with loopback(pace=lambda _: 0.3) as base:
        results = run(talk(base))
        assert len({result.rows[0]["id"] for result in results}) == 3


def test_a_request_id_finds_its_images_in_every_session(tmp_path):
    with loopback() as base:
        (first,) = run(make(base, tmp_path, request_id="monday"))
        (again,) = run(make(base, tmp_path, request_id="monday"))
        assert (first["id"], first["path"]) == (again["id"], again["path"])
        other = read_wish({**SMALL, "model": "flux-2-pro", "seed": 1})
        with pytest.raises(InvalidUsageError, match="was used for another request"):
            run(make(base, tmp_path, other, request_id="monday"))
        assert len(tasks_of(base)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("moment", ["submitting", "submitted", "saved"])
def test_a_killed_process_loses_no_image_and_buys_none_twice(moment, tmp_path):
    """At whatever step the process dies, the same call in the next one ends with one image that was paid once."""
    with loopback(pace=lambda _: 0.3, keeps_keys=True) as base:
        options = ("--base-url", base, "-o", tmp_path)
        process = over_stdio(*options, BFL_API_KEY="a-key")
        pid = tmp_path / "pid"

        async def die():
            async def notice(_done, _total, message):
                if f": {moment}" in message:
                    os.kill(int(pid.read_text()), signal.SIGKILL)

            async with client(with_pid(process, pid)) as assistant:
                await assistant.call_tool("generate", SMALL, progress_callback=notice)

        async def again():
            async with client(process) as assistant:
                return await assistant.call_tool("generate", SMALL)

        with pytest.raises((MCPError, ExceptionGroup)):
            run(die())
        made = run(again())
        assert not made.is_error, made.content
        paid = [task for task in tasks_of(base) if task["cost"]]
        images = sorted(tmp_path.glob("*.jpeg"))
        # A process that dies with its answer on the way cannot know whether it arrived.
        most = 2 if moment == "saved" else 1
        assert len(paid) == len(images) <= most


def test_a_submit_in_doubt_is_said_and_not_sent_again(tmp_path):
    with loopback(trouble=[FaultRule(on="submit", do="reset", accepted=True)]) as base:
        (first,) = run(make(base, tmp_path))
        (again,) = run(make(base, tmp_path))
        assert (first["stage"], again["stage"]) == (Stage.DOUBTFUL, Stage.DOUBTFUL)
        assert first["id"] == again["id"]
        assert len(tasks_of(base)) == 1


def test_unfinished_images_of_another_service_are_not_mixed_in(tmp_path):
    with loopback(trouble=[FaultRule(on="submit", do="reset", accepted=True)]) as base:
        run(make(base, tmp_path))
    with loopback() as other, pytest.raises(InvalidUsageError, match=f"--base-url {base}"):
        run(make(other, tmp_path))


def test_a_client_that_leaves_during_a_submit_leaves_no_doubt(tmp_path):
    """What is in flight has two seconds; the answer to the submit comes within them."""

    async def talk(base):
        maker = maker_of(base, tmp_path)
        begun = asyncio.Event()

        async def notice(kind, _):
            if kind == "submitting":
                begun.set()

        async with maker.open():
            call = asyncio.create_task(maker.make(FOX, None, notice))
            await begun.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    with loopback(trouble=[FaultRule(on="submit", do="delay", seconds=0.5)], pace=lambda _: 30) as base:
        run(talk(base))
    with Ledger.open(tmp_path / "images.ledger") as ledger:
        assert ledger.job(1).stage is Stage.SUBMITTED


def test_what_a_refused_key_left_is_not_bought_later(tmp_path):
    with loopback(accounts=Accounts(["another"])) as base:
        (row,) = run(make(base, tmp_path))
    assert row["stage"] == Stage.FAILED
    assert "It was not submitted, and cost nothing" in row["reason"]
    with loopback() as base:
        run(make(base, tmp_path, read_wish({**SMALL, "model": "flux-2-pro", "seed": 2})))
        assert len(tasks_of(base)) == 1


def test_what_a_dead_process_planned_long_ago_is_given_up(tmp_path):
    with Ledger.open(tmp_path / "images.ledger", clock=lambda: time.time() - 3600) as ledger:
        plan(ledger, [SMALL])
    with loopback() as base:
        run(make(base, tmp_path))
        assert len(tasks_of(base)) == 1
    with Ledger.open(tmp_path / "images.ledger") as ledger:
        assert ledger.job(1).stage is Stage.FAILED


def test_a_moderated_wish_is_tried_again_when_it_is_said_again(tmp_path):
    wish = read_wish({**SMALL, "model": "flux-2-pro", "prompt": "fluxwerk:request-moderated"})
    with loopback() as base:
        (row,) = run(make(base, tmp_path, wish))
        (again,) = run(make(base, tmp_path, wish))
    assert (row["stage"], row["kind"]) == (Stage.FAILED, "moderated")
    assert row["id"] != again["id"]


def test_two_processes_together_stay_within_the_cap_of_the_day(tmp_path):
    """Of ten wishes at a time, in two processes, three fit into ten credits."""

    async def talk(base):
        makers = [maker_of(base, tmp_path, caps=SpendingCaps(day=10)) for _ in range(2)]
        async with makers[0].open(), makers[1].open():
            wishes = [read_wish({**SMALL, "model": "flux-2-pro", "seed": seed}) for seed in range(10)]
            calls = [makers[number % 2].make(wish, None, nothing) for number, wish in enumerate(wishes)]
            return await asyncio.gather(*calls, return_exceptions=True)

    with loopback() as base:
        results = run(talk(base))
        assert len(tasks_of(base)) == 3
    refused = [result for result in results if isinstance(result, Exception)]
    assert len(refused) == 7
    assert all("would cross the cap of this day" in str(one) for one in refused)


def test_a_model_without_a_public_price_meets_no_cap(tmp_path):
    wish = read_wish({"model": "flux-tools-deblur", "image": "https://x.example/a.png"})
    assert wish.estimate is None
    with loopback() as base, pytest.raises(InvalidUsageError, match="is not public"):
        run(make(base, tmp_path, wish, caps=SpendingCaps(session=100)))
