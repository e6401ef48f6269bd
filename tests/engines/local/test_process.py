"""Engine processes as the server sees them: they die, break and hang, and no order is lost or mistaken for another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fluxwerk.engines import Order, RenderProgress
from fluxwerk.engines.local import LocalEngine
from fluxwerk.engines.local.engine import find_devices
from fluxwerk.engines.local.kind import KINDS
from fluxwerk.engines.local.message import Setup
from fluxwerk.engines.local.process import EngineCrashedError, EngineNotReadyError, Process
from fluxwerk.engines.local.row import Row, Weights
from fluxwerk.errors import InvalidUsageError

PRETENDER = (sys.executable, str(Path(__file__).parents[2] / "support" / "pretender.py"))
ROW = Row("flux-2-klein-4b", "/somewhere/klein", KINDS["klein"])
PATIENCE = 60


def order(prompt: str) -> Order:
    return Order("flux-2-klein-4b", prompt, 1, 64, 64)


def ignore(_: RenderProgress) -> None:
    pass


def engine(*devices: str, row: Row = ROW, rows: tuple[Row, ...] = ()) -> LocalEngine:
    weights = Weights({one.model: one for one in rows or (row,)})
    return LocalEngine(weights, devices or ("cpu",), command=PRETENDER)


def during(working: LocalEngine, scene: Callable[[], Awaitable[object]]) -> object:
    async def play() -> object:
        async with asyncio.timeout(PATIENCE), working.open():
            return await scene()

    return asyncio.run(play())


def test_an_order_given_while_it_loads_waits() -> None:
    working = engine()

    async def scene() -> bytes:
        assert working.health().word == "loading"
        assert not working.health().serving
        image = await working.paint(order("go"), ignore)
        assert working.health().word == "ready"
        return image

    assert during(working, scene) == b"cpu"


def test_progress_is_reported() -> None:
    working, reports = engine(), []
    during(working, lambda: working.paint(order("go"), reports.append))
    assert reports == [RenderProgress(0.5)]


def test_a_failure_comes_back_under_its_name() -> None:
    working = engine()
    with pytest.raises(Exception, match="too large") as caught:
        during(working, lambda: working.paint(order("fail too large"), ignore))
    assert type(caught.value).__name__ == "OutOfMemory"


def test_a_process_that_dies_is_started_again_and_its_orders_run_again(tmp_path) -> None:
    working = engine()

    async def scene() -> list[bytes]:
        asked = [working.paint(order(prompt), ignore) for prompt in ("go", f"die-once {tmp_path / 'died'}", "go")]
        return list(await asyncio.gather(*asked))

    assert during(working, scene) == [b"cpu"] * 3
    assert working.processes[0].restarts == 1


def test_an_order_that_kills_three_processes_is_given_up() -> None:
    """An order that kills three processes is given up and the next is rendered."""
    working = engine()

    async def scene() -> object:
        with pytest.raises(EngineCrashedError, match="3 times"):
            await working.paint(order("die"), ignore)
        return await working.paint(order("go"), ignore)

    assert during(working, scene) == b"cpu"
    assert working.processes[0].restarts == 3


def test_bystanders_of_a_killed_process_are_rendered() -> None:
    """Orders that were there when another killed the process are rendered."""
    working = engine()

    async def scene() -> list[object]:
        asked = [working.paint(order(prompt), ignore) for prompt in ("go", "die", "go", "go")]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, guilty, *others = during(working, scene)
    assert isinstance(guilty, EngineCrashedError)
    assert [first, *others] == [b"cpu"] * 3


def test_orders_wait_while_suspects_are_tried(tmp_path) -> None:
    """Orders that come while suspects are tried one by one wait for their turn."""
    working = engine()

    async def scene() -> list[bytes]:
        died = [f"die-once {tmp_path / name}" for name in "ab"]
        asked = [asyncio.create_task(working.paint(order(prompt), ignore)) for prompt in (*died, "wait")]
        await asyncio.gather(*asked[:2])
        # Now the one that waits is alone with the process.
        last = asyncio.create_task(working.paint(order("go"), ignore))
        await asyncio.sleep(0)
        asked[2].cancel()
        return [await last, *(task.result() for task in asked[:2])]

    # The pretender answers for the next order when it hears of a cancelled one: it had not been given that yet.
    assert during(working, scene) == [b"cancelled", b"cpu", b"cpu"]
    assert working.processes[0].restarts == 2


def test_a_process_that_cannot_be_understood_is_killed_and_started_again() -> None:
    again = asyncio.Event()

    async def pause(_: float) -> None:
        again.set()
        await asyncio.Event().wait()

    async def scene() -> None:
        babbling = replace(ROW, path="/babbling")
        process = Process(Setup("cpu", (babbling,)), command=PRETENDER, pause=pause)
        process.start()
        await again.wait()
        assert (process.state, process.why) == ("restarting", "the process died (-9)")
        await process.close()

    asyncio.run(asyncio.wait_for(scene(), PATIENCE))


def test_a_deaf_process_does_not_keep_the_server_running() -> None:
    """A process that takes no more messages does not keep the server from ending."""

    async def scene() -> int | None:
        process = Process(Setup("cpu", (ROW,)), command=PRETENDER)
        process.exit_timeout = 0.1
        process.start()
        await process.paint(order("deafen"), ignore)
        # More than a pipe holds.
        large = replace(order("go"), references=(bytes(2**20),))
        asked = [asyncio.create_task(process.paint(large, ignore)) for _ in range(2)]
        await asyncio.sleep(0)
        child = process._child
        await process.close()
        for task in asked:
            task.cancel()
        return child.returncode

    assert asyncio.run(asyncio.wait_for(scene(), PATIENCE)) == -9


def test_it_is_degraded_while_a_process_is_started_again() -> None:
    seen: list[tuple[float, str]] = []

    async def scene() -> None:
        async def pause(seconds: float) -> None:
            seen.append((seconds, process.state))

        process = Process(Setup("cpu", (ROW,)), command=PRETENDER, pause=pause)
        process.start()
        with pytest.raises(EngineCrashedError):
            await process.paint(order("die"), ignore)
        await process.close()

    asyncio.run(asyncio.wait_for(scene(), PATIENCE))
    assert seen[:2] == [(0.0, "restarting")] * 2


def test_pauses_grow_when_it_dies_before_it_is_ready() -> None:
    waited: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            enough.set()
            await asyncio.Event().wait()

    async def scene() -> None:
        process = Process(Setup("cpu", (ROW,)), command=(sys.executable, "-c", "raise SystemExit(3)"), pause=pause)
        process.start()
        await enough.wait()
        await process.close()

    asyncio.run(asyncio.wait_for(scene(), PATIENCE))
    assert waited == [0.0, 1.0, 5.0, 30.0, 30.0]


def test_unloadable_weights_fail_orders_with_a_reason() -> None:
    """Weights that cannot be loaded fail orders in words and are not tried again."""
    working = engine(row=replace(ROW, path="/broken"))

    async def scene() -> None:
        with pytest.raises(EngineNotReadyError, match="torn"):
            await working.paint(order("go"), ignore)
        assert (working.health().word, working.health().serving) == ("degraded", False)
        assert "torn" in str(working.health().details)
        with pytest.raises(EngineNotReadyError, match="torn"):
            await working.paint(order("go"), ignore)

    during(working, scene)
    assert working.processes[0].restarts == 0


def test_a_cancelled_order_is_cancelled_in_the_process() -> None:
    working = engine()

    async def scene() -> bytes:
        begun = asyncio.Event()
        first = asyncio.create_task(working.paint(order("wait"), lambda _: begun.set()))
        await begun.wait()
        second = asyncio.create_task(working.paint(order("wait"), ignore))
        await asyncio.sleep(0)
        first.cancel()
        # The pretender answers the next order when it hears of a cancelled one.
        return await second

    assert during(working, scene) == b"cancelled"


def test_orders_go_to_the_device_with_the_least_to_do() -> None:
    working = engine("cuda:0", "cuda:1")

    async def scene() -> None:
        begun = asyncio.Event()
        busy = asyncio.create_task(working.paint(order("wait"), lambda _: begun.set()))
        await begun.wait()
        # Only one of the two may be ready yet, and that one is busy.
        for process in working.processes:
            if process.load == 0:
                assert await process.paint(order("go"), ignore) == process.setup.device.encode()
        idle = next(process.setup.device for process in working.processes if process.load == 0)
        assert await working.paint(order("go"), ignore) == idle.encode()
        busy.cancel()

    during(working, scene)


def test_orders_go_to_a_device_that_holds_their_weights() -> None:
    elsewhere = replace(ROW, model="flux-dev", device="cuda:1", kind=KINDS["flux1-dev"])
    working = engine("cuda:0", "cuda:1", rows=(replace(ROW, device="cuda:0"), elsewhere))
    assert [[row.model for row in process.setup.rows] for process in working.processes] == [
        ["flux-2-klein-4b"],
        ["flux-dev"],
    ]
    assert during(working, lambda: working.paint(replace(order("go"), model="flux-dev"), ignore)) == b"cuda:1"


def test_a_device_that_is_not_in_use_is_refused() -> None:
    with pytest.raises(InvalidUsageError, match="cuda:7"):
        engine("cpu", row=replace(ROW, device="cuda:7"))


def test_a_process_that_hangs_is_killed_at_the_end(tmp_path) -> None:
    deaf = "import pathlib, sys, threading; pathlib.Path(sys.argv[1]).touch(); threading.Event().wait()"

    async def scene() -> int | None:
        process = Process(Setup("cpu", (ROW,)), command=(sys.executable, "-c", deaf, str(tmp_path / "up")))
        process.exit_timeout = 0.1
        process.start()
        child = process._child
        await process.close()
        return child.returncode

    assert asyncio.run(asyncio.wait_for(scene(), PATIENCE)) == -9


def test_devices_may_be_named() -> None:
    assert [device.name for device in find_devices("cuda:0, cuda:2", ask=False)] == ["cuda:0", "cuda:2"]


@pytest.mark.parametrize("wanted", ["cuda:0,", "cuda:0, cuda:0", " "])
def test_a_device_named_twice_or_not_at_all_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidUsageError, match=r"--device = .*must name each device once"):
        find_devices(wanted)
