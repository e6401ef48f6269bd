"""What happens to a webhook once it is proven: one notification, one poll, one call, for each task.

A webhook is a hint: only its moment is trusted, and the result is read from the service again. So a webhook that is
lost, forged, repeated or late changes when something happens, but not what happens.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from fluxwerk.bounded import BoundedDict
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.errors import InvalidUsageError, ModerationError, TaskFailedError, TaskNotFoundError
from fluxwerk.protocol.wire import OUTCOMES
from fluxwerk.types import Outcome, Status, Task

if TYPE_CHECKING:
    import asyncio

    from fluxwerk.client.client import AsyncClient, Client

V = TypeVar("V")
# A function or a coroutine function; an awaitable result is awaited.
OnStatus: TypeAlias = Callable[[Status], object]
Find: TypeAlias = Callable[[str], object]

# Seconds for polling the task again; it has ended, so one poll is usually enough.
POLL_TIMEOUT = 120.0
# Webhooks in progress at a time; beyond that the sender is asked to retry.
MOST_IN_PROGRESS = 1000
# Tasks of which something is remembered.
REMEMBERED_TASKS = 10_000

log = logging.getLogger("fluxwerk.webhook")


class Inbox:
    """Accepts the first webhook of each task and acts on it in the background of the running event loop.

    `most` limits the webhooks in progress, and `remembered` the tasks of which something is remembered.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        on_status: OnStatus | None = None,
        client: Client | AsyncClient | None = None,
        find: Find | None = None,
        *,
        most: int = MOST_IN_PROGRESS,
        remembered: int = REMEMBERED_TASKS,
    ) -> None:
        if on_status and not client:
            raise InvalidUsageError(
                "on_status needs client=, because the result is read from the service again before it counts. "
                "Pass client=Client() or client=AsyncClient()."
            )
        self._wakeup = wakeup
        self._on_status = on_status
        self._client = client
        self._find = find
        self._lock = threading.Lock()
        self._most = most
        self._expected = BoundedDict[str, Task](remembered)
        self._early = BoundedDict[str, Status](remembered)
        self._accepted = BoundedDict[str, bool](remembered)
        self._acting: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Inbox({len(self._acting)} webhooks in progress)"

    @property
    def is_full(self) -> bool:
        """Whether no further webhook can be accepted now."""
        return len(self._acting) >= self._most

    def take(self, hint: Status) -> None:
        """Accept a verified webhook; one for a running task, or a repeated one, is ignored."""
        if OUTCOMES.get(hint.word) is Outcome.RUNNING:
            return
        with self._lock:
            if self._accepted.get(hint.task.id):
                return
            self._accepted.put(hint.task.id, True)
        self._wakeup.notify(hint.task.id)
        if self._on_status:
            self._start(hint)

    def expect(self, task: Task) -> None:
        """Register a submitted task, also after its webhook has arrived; safe from any thread."""
        with self._lock:
            self._expected.put(task.id, task)
            early, loop = self._early.pop(task.id, None), self._loop
        if early and loop:
            with suppress(RuntimeError):  # The loop has ended, and with it the server that accepted the webhook.
                loop.call_soon_threadsafe(self.take, early)

    async def settle(self) -> None:
        """Return when every accepted webhook has been acted upon."""
        import asyncio  # noqa: PLC0415  (loading asyncio would slow the import of the package)

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
                log.warning(
                    "A webhook arrived for the unknown task %s; it is kept until expect() names the task.", task_id
                )
                return
            await _run(self._on_status, await self._read_again(task))
        except Exception:
            # The sender has its 200 and does not retry by itself; a repeated webhook gets a second attempt.
            log.exception("The webhook for task %s was accepted, but acting on it failed.", task_id)
            with self._lock:
                self._accepted.pop(task_id, None)
        else:
            with self._lock:
                self._expected.pop(task_id, None)

    async def _known(self, hint: Status) -> Task | None:
        found = await _run(self._find, hint.task.id) if self._find else None
        if isinstance(found, Task):
            return found
        with self._lock:
            task = self._expected.get(hint.task.id)
            if task is None:
                self._early.put(hint.task.id, hint)
                self._accepted.pop(hint.task.id, None)
            return task

    async def _read_again(self, task: Task) -> Status:
        """Poll the task again; an error of `wait` becomes a status for `on_status`."""
        assert self._client is not None, "checked by __init__"
        try:
            status = await _run(self._client.wait, task, timeout=POLL_TIMEOUT)
        except ModerationError as ended:
            return Status(task, f"{ended.stage.capitalize()} Moderated", Outcome.MODERATED, details=ended.details)
        except TaskNotFoundError as ended:
            return Status(task, "Task not found", Outcome.MISSING, details=ended.details)
        except TaskFailedError as ended:
            return Status(task, "Error", Outcome.FAILED, details=ended.details)
        assert isinstance(status, Status)
        return status


async def _run(call: Callable[..., object] | None, *given: object, **named: object) -> object:
    """Call a function in a thread, and await its result if it is awaitable."""
    import asyncio  # noqa: PLC0415

    if call is None:
        return None
    result = await asyncio.to_thread(call, *given, **named)
    return await result if inspect.isawaitable(result) else result
