"""How full a gateway keeps the 24 slots of its account, beside a client that holds the account itself.

Run by hand, on a quiet machine: python bench/gateway.py [images] [seconds].  A server that plays the service takes
`seconds` for each image, and every process is one of its own.  The service draws once and sends that image each time,
since the real one draws on other machines.  Utilisation is the time that the slots were needed by
the time that they were there: images × seconds / (24 × what it took), from the first submit to the last image.  Before
that each way makes two rounds of images that do not count, in which client and gateway learn how long tasks take.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fluxwerk import AsyncClient
from fluxwerk.engines import Order
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.polling.history import PollingHistory
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts

SLOTS = 24
KEY = "the-service-knows-this-key"


class OnceEngine(OfflineEngine):
    """Renders its first order, and has that image for all that follow."""

    @cached_property
    def _image(self) -> bytes:
        return super().render(Order("flux-2-pro", "a fox", 0, 64, 64))

    def render(self, order: Order) -> bytes:  # noqa: ARG002  (the port's name)
        """Return the one image."""
        return self._image


def serve_service(seconds: float) -> None:
    """Play the service until the process is killed."""
    with loopback(OnceEngine(), accounts=Accounts([KEY]), pace=lambda _: seconds) as base:
        print(base, file=sys.stderr, flush=True)
        signal.pause()


def service(seconds: float) -> AbstractContextManager[Server]:
    return started(sys.executable, __file__, "service", str(seconds))


def gateway(*options: str) -> AbstractContextManager[Server]:
    return started(sys.executable, "-m", "fluxwerk", "serve", "--port", "0", "--engine", "upstream", *options)


class Server(NamedTuple):
    """A server in a process of its own."""

    base: str
    pid: int

    def processor_seconds(self) -> float:
        """Return what the process has used of the processor since it started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Measured(NamedTuple):
    """What one way took in seconds, and what client, service and gateway used of the processor meanwhile."""

    took: float
    processor: list[float]


@contextmanager
def started(*command: str) -> Iterator[Server]:
    """Run a server in a process of its own, and yield it once it has printed its address."""
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "BFL_API_KEY": KEY}
    ) as process:
        assert process.stderr
        said = re.search(r"http://\S+:\d+", process.stderr.readline())
        assert said
        try:
            yield Server(said[0], process.pid)
        finally:
            process.kill()


async def fetch(client: AsyncClient, images: int) -> None:
    """Fetch so many images, as many at a time as the client has slots."""
    requests = (f"a fox {number}" for number in range(images))
    async for made in client.generate_many(requests, model="flux-2-pro", width=64, height=64):
        if made.error:
            raise made.error


async def measure(servers: list[Server], images: int, keys: list[str], slots: int | None = None) -> Measured:
    """Let one application for each key fetch its share from the last server, with so many tasks in flight."""

    def spent() -> list[float]:
        return [time.process_time(), *(server.processor_seconds() for server in servers)]

    async with AsyncExitStack() as stack:
        base = servers[-1].base
        made = (AsyncClient(key, base_url=base, slots=slots, history=PollingHistory()) for key in keys)
        clients = [await stack.enter_async_context(client) for client in made]
        await asyncio.gather(*(fetch(client, 2 * SLOTS // len(keys)) for client in clients))
        before, began = spent(), time.perf_counter()
        await asyncio.gather(*(fetch(client, images // len(keys)) for client in clients))
        took = time.perf_counter() - began
        return Measured(took, [end - begin for begin, end in zip(before, spent(), strict=True)])


def main() -> None:
    images, seconds = int((sys.argv[1:] or ["480"])[0]), float((sys.argv[2:] or ["1"])[0])
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%F')}")
    used = {}
    ways: dict[str, tuple[list[str], int | None]] = {
        "direct": ([], None),
        "gateway, 1 application": (["one"], None),
        "the same, with a queue": (["one"], 2 * SLOTS),
        "gateway, 2 applications": (["one", "two"], None),
    }
    for name, (keys, slots) in ways.items():
        with ExitStack() as stack:
            servers = [stack.enter_context(service(seconds))]
            if keys:
                state = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "state")
                queue = ("--queue", str(slots)) if slots else ()
                options = ("--upstream", servers[0].base, "--state", state, *queue)
                servers.append(stack.enter_context(gateway(*options)))
            took, processor = asyncio.run(measure(servers, images, keys or [KEY], slots))
        used[name] = images * seconds / (SLOTS * took)
        ratio = used[name] / used["direct"]
        spent = [f"{1000 * one / images:.0f}" for one in processor]
        print(
            f"{name:24}  {took:6.2f} s for {images} images of {seconds:g} s  {used[name]:5.3f}  {ratio:5.3f} of direct"
            f"  processor: {' + '.join(spent)} ms an image (client, service, gateway)"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["service"]:
        serve_service(float(sys.argv[2]))
    else:
        main()
