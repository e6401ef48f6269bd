"""The cost of the ledger: jobs a second and CPU for each job beside a loop without a ledger, and 100,000 rows.

Run by hand, on a quiet machine: python bench/batch.py [jobs] [rows].  The server is a separate process with the fastest
engine and tasks that are ready at once, so everything that is measured is overhead.
"""

from __future__ import annotations

import asyncio
import csv
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fluxwerk.batch import Batch, plan
from fluxwerk.batch.run import RunOptions, RunProgress
from fluxwerk.client.client import AsyncClient
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.loopback import loopback
from fluxwerk.testing.face_to_face import Blank

KEY = "a-key-for-the-bench"
SLOTS = 24
ROUNDS = 3


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    print(
        f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(f"load before: {os.getloadavg()[0]:.1f}")
    compare(jobs)
    large(rows)


def compare(jobs: int) -> None:
    """Measure both in turn, so that other work on the machine affects both."""
    with tempfile.TemporaryDirectory() as folder, served() as base:
        asyncio.run(by_hand(base, Path(folder) / "warm", 20))
        told: dict[str, list[tuple[float, float]]] = {"asyncio.gather, no ledger": [], "ledger": []}
        for number in range(ROUNDS):
            for name, work in (("asyncio.gather, no ledger", by_hand), ("ledger", with_ledger)):
                out = Path(folder) / f"{number}-{work.__name__}"
                told[name].append(measured(lambda w=work, o=out: asyncio.run(w(base, o, jobs)), jobs))  # type: ignore[misc]
    print(f"\n{jobs} jobs, {SLOTS} in flight, {ROUNDS} rounds in turn (median)")
    for name, taken in told.items():
        rate, cpu = (statistics.median(pair[place] for pair in taken) for place in (0, 1))
        print(f"  {name:28} {rate:8.1f} jobs/s {cpu * 1000:8.2f} ms CPU a job")
    first, second = (statistics.median(pair[0] for pair in taken) for taken in told.values())
    print(f"  ledger / no ledger           {second / first:8.2f}")


async def by_hand(base: str, folder: Path, jobs: int) -> None:
    """Make the images as careful code without a ledger does: 24 at a time, each saved whole."""
    limit = asyncio.Semaphore(SLOTS)
    async with AsyncClient(KEY, base_url=base) as client:

        async def one(number: int) -> None:
            async with limit:
                image = await client.generate(f"image {number}", width=64, height=64)
                await asyncio.to_thread(image.save, folder / f"{number}.{image.suffix}")

        await asyncio.gather(*(one(number) for number in range(jobs)))


async def with_ledger(base: str, folder: Path, jobs: int) -> None:
    """Make the same images with a ledger, planning included."""
    client = AsyncClient(KEY, base_url=base)
    with Batch(
        folder.with_suffix(".ledger"), output=folder, client=client, provenance="none", options=RunOptions()
    ) as batch:
        batch.plan([{"prompt": f"image {number}", "width": 64, "height": 64} for number in range(jobs)])
        await batch.work()
    await client.close()


def measured(work: Callable[[], Any], jobs: int) -> tuple[float, float]:
    """Return jobs a second, and seconds of CPU of this process for each job."""
    before, start = time.process_time(), time.perf_counter()
    work()
    return jobs / (time.perf_counter() - start), (time.process_time() - before) / jobs


def large(rows: int) -> None:
    """Plan many rows, and restart with all of them; each in its own process, to measure its memory."""
    with tempfile.TemporaryDirectory() as folder, served() as base:
        manifest, ledger = Path(folder) / "big.csv", Path(folder) / "big.ledger"
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "model", "width", "height", "seed", "tag"])
            for number in range(rows):
                prompt = f"A red fox number {number} in the snow, golden hour, 35 mm, film grain"
                writer.writerow([prompt, "flux-2-pro", 1024, 1024, number, "foxes"])
        print(f"\n{rows} rows")
        print("  " + _child("plan_large", manifest, ledger))
        print("  " + _child("restart_large", ledger, base))


def plan_large(manifest: str, ledger: str) -> str:
    with Ledger.open(ledger) as opened:
        cpu, start = time.process_time(), time.perf_counter()
        found = plan(opened, manifest)
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return (
        f"plan: {found.jobs / seconds:,.0f} rows/s ({found.jobs / used:,.0f} a second of CPU), "
        f"{_memory():.0f} MB resident at most"
    )


def restart_large(ledger: str, base: str) -> str:
    """Measure the time from opening the ledger to the first submit."""
    start = time.perf_counter()
    first: list[float] = []
    batch = Batch(ledger, output=f"{ledger}-images", client=AsyncClient(KEY, base_url=base))

    def tell(progress: RunProgress) -> None:
        if progress.kind == "submitting" and not first:
            first.append(time.perf_counter() - start)
            batch.stop()

    batch._on_progress = tell  # noqa: SLF001
    with batch:
        asyncio.run(batch.work())
    return f"restart to the first submit: {first[0]:.2f} s, {_memory():.0f} MB resident at most"


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _child(name: str, *arguments: object) -> str:
    here = str(Path(__file__).parent)
    command = f"import sys; sys.path.insert(0, {here!r}); import batch; print(batch.{name}(*sys.argv[1:]))"
    words = [sys.executable, "-c", command, *map(str, arguments)]
    return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def _serve(address: Any) -> None:
    with loopback(Blank()) as base:
        address.send(base)
        address.recv()


@contextmanager
def served() -> Generator[str]:
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("enough")
        process.join(10)


if __name__ == "__main__":
    main()
