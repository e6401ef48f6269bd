"""One engine process as the server sees it: started, listened to, started again when it dies."""

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
from fluxwerk.engines.local.message import Broken, Came, Cancel, Done, Paint, Ready, RenderFailed, Said, Setup

COMMAND = (sys.executable, "-m", "fluxwerk.engines.local.worker")
# An order that was there each time the process died is likely to have killed it.
LIVES = 3
# How long to wait before starting again, by how often it died without getting ready, in seconds.
PAUSES = (0.0, 1.0, 5.0, 30.0)
GOODBYE = 10.0

log = logging.getLogger("fluxwerk.engines.local")


class EngineCrashedError(Exception):
    """The engine's process died each time it had this order."""


class EngineNotReadyError(Exception):
    """The engine cannot render anything, and says why."""


# What a failure in the process is raised as here, so that its name reaches whoever asked.
def failure(kind: str, text: str) -> Exception:
    """Return an error of that name."""
    made: Exception = type(kind, (Exception,), {})(text)
    return made


@dataclass(slots=True)
class _Waiting:
    order: Order
    report: Report
    future: asyncio.Future[bytes]
    lives: int = LIVES
    asked: bool = False


class Process:
    """Holds one device.  `state` is loading, ready, restarting or broken; `why` says why one of the last two."""

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
        self.goodbye = GOODBYE
        self._command = tuple(command)
        self._pause = pause
        self._child: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._failures = 0
        self._closing = False
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="send")
        self._restarting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the running process."""
        return self._child.pid if self._child else None

    @property
    def load(self) -> int:
        """How many orders it has."""
        return len(self._waiting)

    def start(self) -> None:
        """Start the process; it loads for a while before it is ready."""
        self._loop = asyncio.get_running_loop()
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        child = self._child
        self._sending.submit(_send, child, self.setup)
        self._ear = threading.Thread(target=self._listen, args=(child,), name="listen", daemon=True)
        self._ear.start()

    async def paint(self, order: Order, report: Report) -> bytes:
        """Let the process render an order, again if it dies meanwhile."""
        if self.state == "broken":
            raise EngineNotReadyError(self.why)
        number = next(self._numbers)
        waiting = _Waiting(order, report, self._loop.create_future())
        self._waiting[number] = waiting
        self._hand_on()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting.asked:
                self._ask(Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)
            self._hand_on()

    async def close(self) -> None:
        """Hang up and wait for the end; a process that does not end is killed."""
        self._closing = True
        if self._restarting:
            self._restarting.cancel()
        child = self._child
        if child is not None:
            # Behind what is being sent: a pipe cannot be closed while somebody waits for room in it.
            self._sending.submit(_hang_up, child)
        self._sending.shutdown(wait=child is None)
        if child is not None:
            await self._loop.run_in_executor(None, _end, child, self.goodbye)
            await self._loop.run_in_executor(None, self._ear.join)

    def _hand_on(self) -> None:
        """Give the process what waits; what it died with twice goes one by one, so that the guilty dies alone."""
        if self.state != "ready":
            return
        suspects = [number for number, waiting in self._waiting.items() if waiting.lives == 1]
        if suspects and any(waiting.asked for waiting in self._waiting.values()):
            return
        for number in suspects[:1] or self._waiting:
            waiting = self._waiting[number]
            if not waiting.asked:
                waiting.asked = True
                self._ask(Paint(number, waiting.order))

    def _ask(self, asked: Paint | Cancel) -> None:
        if self._child is not None and not self._closing:
            self._sending.submit(_send, self._child, asked)

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Carry what the process says to the event loop; runs on a thread of its own until the process ends."""
        assert child.stdout is not None
        with child.stdout:
            try:
                while True:
                    self._loop.call_soon_threadsafe(self._hear, pickle.load(child.stdout))  # noqa: S301
            except EOFError:
                log.debug("the engine process on %s says nothing any more", self.setup.device)
            except Exception as fault:  # noqa: BLE001  (a torn message, or something else in its place)
                log.debug("the engine process on %s cannot be understood: %s", self.setup.device, fault)
                # It would go on working for nobody.
                child.kill()
        code = child.wait()
        _hang_up(child)
        try:
            self._loop.call_soon_threadsafe(self._bury, child, code)
        except RuntimeError:
            # The event loop is gone already, and so is everyone who waited.
            log.debug("the engine process ended after the server")

    def _hear(self, said: Said) -> None:
        match said:
            case Ready():
                self.state, self.why, self._failures = "ready", "", 0
                self._hand_on()
            case Broken(text):
                self.state, self.why = "broken", text
                log.error("the engine on %s cannot work: %s", self.setup.device, text)
            case Came(number, share, preview):
                if number in self._waiting:
                    self._waiting[number].report(RenderProgress(share, preview))
            case Done(number, picture):
                self._answer(number, picture)
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

    def _bury(self, child: subprocess.Popen[bytes], code: int) -> None:
        """Start another process after this one died, and give it what this one had."""
        if self._closing or child is not self._child:
            return
        self._child = None
        if self.state == "broken":
            for number in list(self._waiting):
                self._answer(number, EngineNotReadyError(self.why))
            return
        log.error("the engine process on %s died (%d) with %d orders", self.setup.device, code, self.load)
        self._failures = 1 if self.state == "ready" else self._failures + 1
        self.state, self.why = "restarting", f"the process died ({code})"
        for number, waiting in list(self._waiting.items()):
            waiting.lives -= waiting.asked
            waiting.asked = False
            if waiting.lives <= 0:
                self._answer(number, EngineCrashedError(f"the engine process died {LIVES} times with this order"))
        self._restarting = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        await self._pause(PAUSES[min(self._failures - 1, len(PAUSES) - 1)])
        self.restarts += 1
        self.start()


def _send(child: subprocess.Popen[bytes], message: Setup | Paint | Cancel) -> None:
    assert child.stdin is not None
    try:
        pickle.dump(message, child.stdin)
        child.stdin.flush()
    except (OSError, ValueError):
        # Whoever listens to the process hears of its end, and says it once.
        log.debug("nobody takes messages on %s any more", child.pid)


def _end(child: subprocess.Popen[bytes], patience: float) -> None:
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
