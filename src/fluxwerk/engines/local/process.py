"""One engine process, seen from the server: it is started, read from, and restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from fluxwerk.engines import Order, RenderProgress, Report
from fluxwerk.engines.local.message import (
    Broken,
    Cancel,
    Command,
    Done,
    Progressed,
    Ready,
    Render,
    RenderFailed,
    Reply,
    Setup,
)

COMMAND = (sys.executable, "-m", "fluxwerk.engines.local.worker")
# An order that was present each time the process died has probably killed it.
ATTEMPTS = 3
# Seconds to wait before a restart, by the number of deaths before the process was ready.
RESTART_PAUSES = (0.0, 1.0, 5.0, 30.0)
EXIT_TIMEOUT = 10.0

log = logging.getLogger("fluxwerk.engines.local")


class EngineCrashedError(Exception):
    """The engine process died each time it had this order."""


class EngineNotReadyError(Exception):
    """The engine cannot render anything; the message says why."""


# The name of an error crosses from one process to the other, but its class may not exist here.
def failure(kind: str, text: str) -> Exception:
    """Return an exception whose class has that name."""
    error: Exception = type(kind, (Exception,), {})(text)
    return error


@dataclass(slots=True)
class _PendingOrder:
    order: Order
    report: Report
    future: asyncio.Future[bytes]
    attempts_left: int = ATTEMPTS
    sent: bool = False


class Process:
    """Owns one device. `state` is loading, ready, restarting or broken; `why` explains the last two."""

    def __init__(
        self,
        setup: Setup,
        *,
        command: Sequence[str] = COMMAND,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.setup = setup
        self.state = "loading"
        self.why = ""
        self.restarts = 0
        self.exit_timeout = EXIT_TIMEOUT
        self._command = tuple(command)
        self._pause = pause
        self._child: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._waiting: dict[int, _PendingOrder] = {}
        self._failures = 0
        self._closing = False
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="send")
        self._restarting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the running process."""
        return self._child.pid if self._child else None

    @property
    def load(self) -> int:
        """The number of orders that it has."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the process, which loads the weights before it is ready."""
        self._loop = asyncio.get_running_loop()
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        child = self._child
        self._sending.submit(_send, child, self.setup)
        self._reader = threading.Thread(target=self._listen, args=(child,), name="listen", daemon=True)
        self._reader.start()

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return the image file of an order; the order is rendered again if the process dies."""
        if self.state == "broken":
            raise EngineNotReadyError(self.why)
        number = next(self._numbers)
        waiting = _PendingOrder(order, report, self._loop.create_future())
        self._waiting[number] = waiting
        self._dispatch()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting.sent:
                self._enqueue(Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)
            self._dispatch()

    async def close(self) -> None:
        """Close the pipe and wait for the process; a process that does not end is killed."""
        self._closing = True
        if self._restarting:
            self._restarting.cancel()
        child = self._child
        if child is not None:
            # Queued behind earlier messages: a pipe cannot be closed while a write to it is blocked.
            self._sending.submit(_close_stdin, child)
        self._sending.shutdown(wait=child is None)
        if child is not None:
            await self._loop.run_in_executor(None, _end, child, self.exit_timeout)
            await self._loop.run_in_executor(None, self._reader.join)

    def _dispatch(self) -> None:
        """Send waiting orders; those present at two deaths are sent one by one, to find the one that kills."""
        if self.state != "ready":
            return
        suspects = [number for number, waiting in self._waiting.items() if waiting.attempts_left == 1]
        if suspects and any(waiting.sent for waiting in self._waiting.values()):
            return
        for number in suspects[:1] or self._waiting:
            waiting = self._waiting[number]
            if not waiting.sent:
                waiting.sent = True
                self._enqueue(Render(number, waiting.order))

    def _enqueue(self, command: Command) -> None:
        if self._child is not None and not self._closing:
            self._sending.submit(_send, self._child, command)

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Pass the replies of the process to the event loop; runs on its own thread until the process ends."""
        assert child.stdout is not None
        with child.stdout:
            try:
                while True:
                    self._loop.call_soon_threadsafe(self._receive, pickle.load(child.stdout))  # noqa: S301
            except EOFError:
                log.debug("The engine process on %s has closed its pipe.", self.setup.device)
            except Exception as fault:  # noqa: BLE001  (a truncated message, or output that is not one)
                log.debug("The engine process on %s sent something unreadable: %s", self.setup.device, fault)
                # Its replies can no longer be read, so its work is useless.
                child.kill()
        code = child.wait()
        _close_stdin(child)
        try:
            self._loop.call_soon_threadsafe(self._on_exit, child, code)
        except RuntimeError:
            # The event loop has ended, so no order waits for an answer.
            log.debug("The engine process ended after the server.")

    def _receive(self, reply: Reply) -> None:
        match reply:
            case Ready():
                self.state, self.why, self._failures = "ready", "", 0
                self._dispatch()
            case Broken(text):
                self.state, self.why = "broken", text
                log.error("The engine on %s cannot be used: %s", self.setup.device, text)
            case Progressed(number, share, preview):
                if number in self._waiting:
                    self._waiting[number].report(RenderProgress(share, preview))
            case Done(number, image):
                self._answer(number, image)
            case RenderFailed(number, kind, text):
                self._answer(number, failure(kind, text))

    def _answer(self, number: int, answer: bytes | Exception) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.future.done():
            return
        if isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)

    def _on_exit(self, child: subprocess.Popen[bytes], code: int) -> None:
        """Restart the process after its death, and give the new one the orders of the old one."""
        if self._closing or child is not self._child:
            return
        self._child = None
        if self.state == "broken":
            for number in list(self._waiting):
                self._answer(number, EngineNotReadyError(self.why))
            return
        log.error("The engine process on %s died (%d) with %d orders.", self.setup.device, code, self.load)
        self._failures = 1 if self.state == "ready" else self._failures + 1
        self.state, self.why = "restarting", f"the process died ({code})"
        for number, waiting in list(self._waiting.items()):
            waiting.attempts_left -= waiting.sent
            waiting.sent = False
            if waiting.attempts_left <= 0:
                self._answer(number, EngineCrashedError(f"the engine process died {ATTEMPTS} times with this order"))
        self._restarting = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        await self._pause(RESTART_PAUSES[min(self._failures - 1, len(RESTART_PAUSES) - 1)])
        self.restarts += 1
        self.start()


def _send(child: subprocess.Popen[bytes], message: Setup | Command) -> None:
    assert child.stdin is not None
    try:
        pickle.dump(message, child.stdin)
        child.stdin.flush()
    except (OSError, ValueError):
        # The reading thread notices the end of the process and reports it once.
        log.debug("The engine process %s no longer takes messages.", child.pid)


def _end(child: subprocess.Popen[bytes], timeout: float) -> None:
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _close_stdin(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
