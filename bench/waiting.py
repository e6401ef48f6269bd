"""How well the slots are used: the time of 200 tasks with 24 slots, and its cost in polls, CPU and memory.

Run by hand, on a quiet machine: python bench/waiting.py [JOBS] [--cases NAME,...].  Each contender is a process with a
server of its own and the same tasks, whose durations are drawn once from a seed by the number of the task.  "Perfect"
refills a slot at the moment at which it becomes free.  `--exact` runs the polling contenders on the pretend clock
instead, without a network, where the result is the same on every machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from fluxwerk import AsyncClient, Client, Event, catalog
from fluxwerk.engines import FullAbilities, Order, RenderProgress, Report
from fluxwerk.polling.histogram import Histogram, bin_of
from fluxwerk.polling.history import PollingHistory, _Kind, kind_of
from fluxwerk.server.loopback import listen, loopback
from fluxwerk.testing.face_to_face import BASE, Blank, FaceToFace, blank
from fluxwerk.types import Task
from fluxwerk.webhook import Receiver

KEY = "a-key-for-the-bench"
MODEL = "flux-2-pro"
SLOTS = 24
# The seed of what is measured, and of what the learning contenders have seen before.
MEASURED, BEFORE = 7, 8
STEPS = 20
EXACT_ROUNDS = 20

Draw = Callable[[random.Random, int, int], float]
CASES: dict[str, Draw] = {
    "lognormal": lambda dice, _number, _jobs: dice.lognormvariate(-0.125, 0.5),
    "bimodal": lambda dice, _number, _jobs: dice.choice((0.5, 3.0)),
    "drifting": lambda dice, number, jobs: (0.6 + 0.8 * number / jobs) * dice.lognormvariate(-0.02, 0.2),
}
CONTENDERS = ("plain loop", "nothing learned", "learned", "learned, with progress", "webhook", "webhook never comes")


def durations(case: str, seed: int, jobs: int) -> list[float]:
    """Draw how long each task takes, in seconds."""
    dice = random.Random(f"{case} {seed}")
    return [CASES[case](dice, number, jobs) for number in range(jobs)]


def perfect(seconds: list[float], slots: int) -> float:
    """Return the time that all tasks take when no slot is idle while one waits."""
    busy = [0.0] * slots
    heapify(busy)
    for taken in seconds:
        heapreplace(busy, busy[0] + taken)
    return max(busy)


class Paced(FullAbilities):
    """The fastest engine, delayed to the task's duration; it reports its progress in steps as a sampler does."""

    name = "paced"

    def __init__(self, pace: Callable[[Order], float]) -> None:
        self._pace = pace

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Need nothing."""
        yield

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return a grey image after the duration of its task."""
        began, seconds = time.monotonic(), self._pace(order)
        for step in range(STEPS):
            report(RenderProgress(step / STEPS))
            await asyncio.sleep(began + seconds * (step + 1) / STEPS - time.monotonic())
        return blank(order.width, order.height)


def _serve(address: Any, case: str, jobs: int, slots: int, telling: bool) -> None:  # noqa: FBT001
    drawn = {seed: durations(case, seed, jobs) for seed in (MEASURED, BEFORE)}

    def pace(order: Order) -> float:
        return drawn[order.seed // 10**6][order.seed % 10**6]

    # The catalogue says how many slots there are, but a private server may have more.
    if slots != SLOTS:
        for model in catalog.list_models().values():
            object.__setattr__(model, "slots", slots)
    engine: Any = Paced(pace) if telling else Blank()
    with loopback(engine, pace=(lambda _: 0.0) if telling else pace) as base:
        address.send(base)
        address.recv()


@contextmanager
def served(case: str, jobs: int, slots: int = SLOTS, *, telling: bool = False) -> Generator[str]:
    """Run a server in a process of its own."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(there, case, jobs, slots, telling), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("enough")
        process.join(10)


async def plain(base: str, jobs: int, slots: int) -> dict[str, float]:
    """Make the images as most people write it: a semaphore, a poll every half second, and a download."""
    limit, headers, polls = asyncio.Semaphore(slots), {"x-key": KEY}, 0
    limits = httpx2.Limits(max_connections=slots * 2)
    async with httpx2.AsyncClient(headers=headers, timeout=60, limits=limits) as http:

        async def one(number: int) -> None:
            nonlocal polls
            async with limit:
                body = {"prompt": "a fox", "width": 64, "height": 64, "seed": MEASURED * 10**6 + number}
                task = (await http.post(f"{base}/v1/{MODEL}", json=body)).raise_for_status().json()
                while True:
                    await asyncio.sleep(0.5)
                    polls += 1
                    status = (await http.get(task["polling_url"])).raise_for_status().json()
                    if status["status"] == "Ready":
                        break
                (await http.get(status["result"]["sample"])).raise_for_status()

        await http.get(f"{base}/healthz")
        spent = Meter()
        await asyncio.gather(*(one(number) for number in range(jobs)))
        return spent.stop(polls, jobs)


class Meter:
    """Seconds, CPU and memory of this process from now on."""

    def __init__(self) -> None:
        self._cpu, self._began = time.process_time(), time.perf_counter()

    def stop(self, polls: int, jobs: int) -> dict[str, float]:
        """Say what was spent, in seconds, milliseconds of CPU a task and MB."""
        return {
            "seconds": time.perf_counter() - self._began,
            "polls": polls / jobs,
            "cpu": (time.process_time() - self._cpu) / jobs * 1e3,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


async def ours(
    base: str, jobs: int, slots: int, *, learning: bool, webhook: Receiver | None = None
) -> dict[str, float]:
    """Make the same images with `generate_many`; who learns has seen as many tasks of the kind before."""
    polls = 0

    def hear(event: Event) -> None:
        nonlocal polls
        polls += event.kind == "polled"

    history = PollingHistory(learning=learning)
    client = AsyncClient(KEY, base_url=base, slots=slots, on_event=hear, webhook=webhook, history=history, timeout=600)
    async with client:

        async def many(seed: int) -> None:
            wanted = (
                client.request("a fox", model=MODEL, width=64, height=64, seed=seed * 10**6 + number)
                for number in range(jobs)
            )
            async for made in client.generate_many(wanted):
                if made.error:
                    raise made.error

        if learning and webhook is None:
            await many(BEFORE)
        else:
            await client.credits()
        polls, spent = 0, Meter()
        await many(MEASURED)
        return spent.stop(polls, jobs)


async def unanswered(base: str, jobs: int, slots: int) -> dict[str, float]:
    """Do the same with a webhook that never comes: the receiver's port is open and silent."""
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/hooks"
        return await ours(base, jobs, slots, learning=True, webhook=Receiver("a-secret-of-the-bench", url=url))


async def hooked(base: str, jobs: int, slots: int) -> dict[str, float]:
    """Do the same with webhooks coming in; the receiver runs in this process, and counts."""
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/hooks"
        receiver = Receiver("a-secret-of-the-bench", url=url)
        server = uvicorn.Server(uvicorn.Config(receiver, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            return await ours(base, jobs, slots, learning=True, webhook=receiver)
        finally:
            server.should_exit = True
            thread.join()


def contend(name: str, base: str, jobs: int, slots: int) -> dict[str, float]:
    """Run one contender in this process."""
    if name == "plain loop":
        return asyncio.run(plain(base, jobs, slots))
    if name == "webhook never comes":
        return asyncio.run(unanswered(base, jobs, slots))
    if name == "webhook":
        return asyncio.run(hooked(base, jobs, slots))
    return asyncio.run(ours(base, jobs, slots, learning=name != "nothing learned"))


def measured(name: str, case: str, jobs: int, slots: int = SLOTS) -> dict[str, float]:
    """Run one contender in a process of its own against a server of its own."""
    with served(case, jobs, slots, telling=name.endswith("with progress")) as base:
        words = [sys.executable, __file__, "--contend", name, base, str(jobs), str(slots)]
        out = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout
    found: dict[str, float] = json.loads(out)
    return found


def compare(case: str, jobs: int) -> None:
    """Print one table."""
    best = perfect(durations(case, MEASURED, jobs), SLOTS)
    print(f"\n{case}: {jobs} tasks, {SLOTS} slots; a perfect refill needs {best:.2f} s")
    print(f"  {'':24}{'seconds':>8}{'beyond':>9}{'polls':>7}{'CPU':>9}{'memory':>9}")
    for name in CONTENDERS:
        found = measured(name, case, jobs)
        print(
            f"  {name:24}{found['seconds']:8.2f}{found['seconds'] / best - 1:9.1%}{found['polls']:7.1f}"
            f"{found['cpu']:6.2f} ms{found['memory']:6.0f} MB"
        )


def scale() -> None:
    """Print what a task costs with few slots and with many."""
    print("\n1,000 tasks of the lognormal case, learned")
    for slots in (SLOTS, 500):
        best = perfect(durations("lognormal", MEASURED, 1000), slots)
        found = measured("learned", "lognormal", 1000, slots)
        print(
            f"  {slots:3} slots: {found['seconds']:6.2f} s (perfect {best:.2f}), {found['polls']:.1f} polls, "
            f"{found['cpu']:.2f} ms CPU a task, {found['memory']:.0f} MB"
        )


def single(images: int = 60) -> None:
    """Print how long it takes from ready to the file on the disk, one image after the other, of the offline engine."""
    waits: list[float] = []
    words = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        base = next(word for word in server.stderr.readline().split() if word.startswith("http://127"))
        ready: list[float] = []

        def hear(event: Event) -> None:
            if event.kind == "ready":
                ready.append(time.time())

        with httpx2.Client(headers={"x-key": KEY}) as http:
            for name, history in (
                ("nothing learned", PollingHistory(learning=False)),
                ("learned", PollingHistory()),
            ):
                with Client(KEY, base_url=base, history=history, on_event=hear) as client:
                    waits = []
                    for number in range(images):
                        image = client.generate(f"a fox {number}", model=MODEL, width=1024, height=1024)
                        image.save(Path(folder) / f"{name}-{number}.png")
                        saved = time.time()
                        polled = http.get(image.task.polling_url).raise_for_status().json()
                        waits.append(saved - polled["result"]["end_time"])
                print(
                    f"  {name:18}{statistics.median(waits[images // 3 :]) * 1e3:6.0f} ms in the median, "
                    f"{statistics.quantiles(waits[images // 3 :], n=10)[8] * 1e3:.0f} ms in nine of ten"
                )
        server.terminate()


def exact(case: str, jobs: int) -> None:
    """Print the polling contenders as they are on the pretend clock: no network and no CPU comes between."""
    rounds = [(2 * number + MEASURED, 2 * number + BEFORE) for number in range(EXACT_ROUNDS)]
    print(f"\n{case} on the pretend clock: {jobs} tasks, {SLOTS} slots, mean of {EXACT_ROUNDS} drawings")
    contenders: dict[str, Callable[[], PollingHistory]] = {
        "nothing learned": lambda: PollingHistory(learning=False),
        "learned": PollingHistory,
    }
    if case == "lognormal":
        contenders["distribution known"] = _knowing
    for name, make in contenders.items():
        beyond, polls = zip(*(_play(case, jobs, *seeds, make()) for seeds in rounds), strict=True)
        spread = statistics.stdev(beyond) / EXACT_ROUNDS**0.5
        print(
            f"  {name:24}{statistics.mean(beyond):7.2%} beyond a perfect refill (± {spread:.2%}), "
            f"{statistics.mean(polls):.2f} polls a task"
        )


def _knowing() -> PollingHistory:
    """Return a history of twenty thousand such tasks: polls without further knowledge cannot do better."""
    history, dice = PollingHistory(), random.Random(1)
    sketch = Histogram()
    for _ in range(20_000):
        number = bin_of(CASES["lognormal"](dice, 0, 1))
        sketch.bins[number] = sketch.bins.get(number, 0.0) + 1
    task = Task("", f"{BASE}/", MODEL, output_mp=Decimal(0), input_mp=Decimal(0))
    history._kinds[kind_of(task)] = _Kind(sketch)  # noqa: SLF001
    return history


def _play(case: str, jobs: int, seed: int, before: int, history: PollingHistory) -> tuple[float, float]:
    drawn = {number: durations(case, number, jobs) for number in (seed, before)}
    face = FaceToFace(
        seconds=lambda order: drawn[order.seed // 10**6][order.seed % 10**6],
        history=history,
    )
    began, known = face.clock.now(), 0
    for number in (before, seed) if history.learning else (seed,):
        began, known = face.clock.now(), len(face.journal)
        wanted = [
            face.request("a fox", model=MODEL, width=64, height=64, seed=number * 10**6 + place)
            for place in range(jobs)
        ]
        assert all(made.image for made in face.generate_many(wanted))
    polls = sum("get_result" in http.url for http in face.journal[known:])
    return (face.clock.now() - began) / perfect(drawn[seed], SLOTS) - 1, polls / jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="?", type=int, default=200)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--contend", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contend:
        name, base, jobs, slots = given.contend
        print(json.dumps(contend(name, base, int(jobs), int(slots))))
        return
    print(
        f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    for case in given.cases.split(","):
        if given.exact:
            exact(case, given.jobs)
        else:
            compare(case, given.jobs)
    if not given.exact:
        scale()
        print("\nfrom ready to the file, one 1024 × 1024 image of the offline engine after the other")
        single()


if __name__ == "__main__":
    main()
