"""What happens to a webhook once it is proven: one notification, one poll, one call, for each task.

A webhook is a hint.  It is believed about nothing but the moment, so that a lost, forged, doubled or late one changes
how soon something happens and never what.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from fluxwerk.client.wakeup import Wakeup
from fluxwerk.errors import InvalidUsageError, ModerationError, TaskFailedError, TaskNotFoundError
from fluxwerk.protocol.wire import OUTCOMES
from fluxwerk.types import Outcome, Status, Task

if TYPE_CHECKING:
    import asyncio

    from fluxwerk.client.client import AsyncClient, Client

V = TypeVar("V")
# A coroutine function is a function too: what it returns is awaited.
OnStatus: TypeAlias = Callable[[Status], object]
Find: TypeAlias = Callable[[str], object]

# Seconds for asking the polling URL again; the webhook says that the task has ended, so one poll is the rule.
LONGEST_REREAD = 120.0
# Webhooks taken in and not yet acted upon; the next sender is asked to come again.
MOST_AT_ONCE = 1000
REMEMBERED = 10_000

log = logging.getLogger("fluxwerk.webhook")


class Inbox:
    """Takes each task's first webhook and acts on it in the background of the running event loop.

    At `most` so many are acted upon at a time, and of so many tasks something is `remembered`.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        on_status: OnStatus | None = None,
        client: Client | AsyncClient | None = None,
        find: Find | None = None,
        *,
        most: int = MOST_AT_ONCE,
        remembered: int = REMEMBERED,
    ) -> None:
        if on_status and not client:
            raise InvalidUsageError(
                "on_status needs client=: a webhook is a hint, and the result is read again before it counts."
            )
        self._wakeup = wakeup
        self._on_status = on_status
        self._client = client
        self._find = find
        self._lock = threading.Lock()
        self._most = most
        self._expected = _Memory[Task](remembered)
        self._early = _Memory[Status](remembered)
        self._heard = _Memory[bool](remembered)
        self._acting: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Inbox({len(self._acting)} webhooks being acted upon)"

    @property
    def is_full(self) -> bool:
        """Whether another webhook would be one too many."""
        return len(self._acting) >= self._most

    def take(self, hint: Status) -> None:
        """Take in a proven webhook, unless it says that its task still runs, or comes for the second time."""
        if OUTCOMES.get(hint.word) is Outcome.RUNNING:
            return
        with self._lock:
            if self._heard.get(hint.task.id):
                return
            self._heard.put(hint.task.id, value=True)
        self._wakeup.notify(hint.task.id)
        if self._on_status:
            self._start(hint)

    def expect(self, task: Task) -> None:
        """Tell of a task that was submitted; safe from any thread, and after its webhook came as well."""
        with self._lock:
            self._expected.put(task.id, task)
            early, loop = self._early.pop(task.id), self._loop
        if early and loop:
            with suppress(RuntimeError):  # The loop has ended, and with it the server that took the webhook in.
                loop.call_soon_threadsafe(self.take, early)

    async def settle(self) -> None:
        """Come back when every webhook that was taken in has been acted upon."""
        import asyncio  # noqa: PLC0415  (importing the package must not load it)

        while self._acting:
            await asyncio.gather(*self._acting)

    def _start(self, hint: Status) -> None:
        import asyncio  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        acting = self._loop.create_task(self._act(hint))
        self._acting.add(acting)
        acting.add_done_callback(self._acting.discard)

    async def _act(self, hint: Status) -> None:
        task_id = hint.task.id
        try:
            task = await self._known(hint)
            if task is None:
                log.warning("a webhook came for task %s, of which nobody has told; it is kept in case", task_id)
                return
            await _run(self._on_status, await self._read_again(task))
        except Exception:
            # It was acknowledged, so it does not come by itself again; if it does, it gets its second chance.
            log.exception("a webhook for task %s was taken in and could not be acted upon", task_id)
            with self._lock:
                self._heard.pop(task_id)
        else:
            with self._lock:
                self._expected.pop(task_id)

    async def _known(self, hint: Status) -> Task | None:
        found = await _run(self._find, hint.task.id) if self._find else None
        if isinstance(found, Task):
            return found
        with self._lock:
            task = self._expected.get(hint.task.id)
            if task is None:
                self._early.put(hint.task.id, hint)
                self._heard.pop(hint.task.id)
            return task

    async def _read_again(self, task: Task) -> Status:
        """Ask the polling URL; what raises in a waiting client is a status to whoever only listens."""
        assert self._client is not None, "checked when the inbox was made"
        try:
            status = await _run(self._client.wait, task, timeout=LONGEST_REREAD)
        except ModerationError as ended:
            return Status(task, f"{ended.stage.capitalize()} Moderated", Outcome.MODERATED, details=ended.details)
        except TaskNotFoundError as ended:
            return Status(task, "Task not found", Outcome.MISSING, details=ended.details)
        except TaskFailedError as ended:
            return Status(task, "Error", Outcome.FAILED, details=ended.details)
        assert isinstance(status, Status)
        return status


class _Memory(Generic[V]):
    """The newest entries, at most so many; its owner locks it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[str, V] = OrderedDict()

    def put(self, name: str, value: V) -> None:
        self._entries[name] = value
        self._entries.move_to_end(name)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def get(self, name: str) -> V | None:
        return self._entries.get(name)

    def pop(self, name: str) -> V | None:
        return self._entries.pop(name, None)


async def _run(call: Callable[..., object] | None, *given: object, **named: object) -> object:
    """Call what may block in a thread, and await what may be awaited, without having to know which it is."""
    import asyncio  # noqa: PLC0415

    if call is None:
        return None
    result = await asyncio.to_thread(call, *given, **named)
    return await result if inspect.isawaitable(result) else result
