"""From an order to a task at the service: one POST for each intent in the journal, when a slot is free."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.client.client import AsyncClient
from fluxwerk.drive import WALL, drive_async
from fluxwerk.engines import Order
from fluxwerk.engines.upstream import endings
from fluxwerk.engines.upstream.journal import UpstreamEntry, UpstreamJournal
from fluxwerk.engines.upstream.request import write_request
from fluxwerk.errors import (
    APIStatusError,
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    InvalidUsageError,
    RateLimitError,
)
from fluxwerk.protocol import flow, retry
from fluxwerk.protocol.idempotency import SHARE_OF_PROMISE, key_of
from fluxwerk.types import Flow, Json, Pool, Request, Task

# Seconds after which the answer to a submit counts as lost.
ANSWER_SECONDS = 120.0
# What waits for a slot looks again after so many seconds: another process may have given one back.
SLOT_LOOK = 0.5
# What is downloaded lets the next submit go first, for so many seconds at most.
REFILL_SECONDS = 1.0
# Seconds for the answer that says whether the service keeps keys.
PROMISE_SECONDS = 5.0


class UpstreamSubmitter:
    """Sends each order once; what the service certainly did not take waits for its turn and is sent again.

    `webhook` are the options that name a receiver, for the models that take them.
    """

    def __init__(
        self, client: AsyncClient, journal: UpstreamJournal, webhook: Mapping[str, Json] | None = None
    ) -> None:
        self._client = client
        self._journal = journal
        self._webhook = webhook or {}
        self._pools: dict[str, _PoolQueue] = defaultdict(_PoolQueue)
        # Why the service took nothing lately, for people; empty while it takes submits.
        self.trouble = ""
        # What the service, or the way to it, has done wrong since the start, by the name of the error.
        self.errors: Counter[str] = Counter()

    def is_crowded(self, pool: str) -> bool:
        """Whether an order waits for a slot."""
        return self._pools[pool].waiting > 0

    def freed(self, pool: str) -> None:
        """Let the next order look for the slot that an ended task gave back."""
        queue = self._pools[pool]
        queue.look.set()
        if queue.waiting:
            queue.refilled.clear()

    async def refilled(self, pool: str) -> None:
        """Come back when the submits that slots were given back for have left, or at once if none waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REFILL_SECONDS):
                await self._pools[pool].refilled.wait()

    async def submit(self, order: Order, until: float) -> Task:
        """Submit an order and return its task; raises `OrderEndedError`, at the latest after the moment `until`."""
        try:
            model, request = await self._prepared(order)
        except InvalidUsageError as wrong:
            raise endings.refused(wrong) from wrong
        pool = Pool(model.pool, model.slots)
        while True:
            await self._take_slot(order, pool, until)
            try:
                # On the disk before the submit leaves: a power cut must not hide that it may be paid.  All orders that
                # have just got a slot share one flush.
                await self._journal.flush()
            finally:
                # What follows leaves in the next turn of the event loop.
                asyncio.get_running_loop().call_soon(self._pools[pool.name].note_left)
            steps = flow.submit(
                model,
                request,
                self._client.access.base,
                key=key_of(order.id),
                promises=self._client.promises,
                once=True,
            )
            task = await self._note(order, steps)
            if task:
                return task

    async def repeat(self, order: Order, entry: UpstreamEntry) -> Task | None:
        """Send a submit again whose answer was lost, if the service keeps its key and so makes it the same task.

        Returns its task, or `None` if the service proves that it took none; raises `OrderEndedError` if nothing is
        proved.
        """
        base, promises = self._client.access.base, self._client.promises
        with suppress(FluxwerkError):
            # Its answer says whether the service keeps keys, and costs nothing.
            await self._client.credits(timeout=PROMISE_SECONDS)
        kept = (promises.seconds(base) or 0.0) * SHARE_OF_PROMISE
        # Another account does not know the key, and would buy the image again.
        if entry.foreign or time.time() - entry.intended >= kept:
            await self._journal.doubt(order.id, "the gateway stopped before the answer was there")
            raise endings.in_doubt()
        model, request = await self._prepared(order)
        return await self._note(order, flow.repeat(model, request, base, key_of(order.id), promises), again=True)

    async def _prepared(self, order: Order) -> tuple[Model, Request]:
        # An image of twenty megabytes takes a while to encode.
        model, request = await asyncio.to_thread(write_request, order)
        webhook = self._webhook if catalog.takes_webhooks(model) else {}
        return model, replace(request, fields={**request.fields, **webhook})

    async def _note(self, order: Order, steps: Flow[Task], *, again: bool = False) -> Task | None:
        """Send a submit and write its answer down; `None` if it was not taken and is to be sent anew.

        Whoever cancels the order does not cut this off: the submit has left and may be paid.
        """
        noting = asyncio.ensure_future(self._write_down(order, steps, again=again))
        try:
            return await asyncio.shield(noting)
        except asyncio.CancelledError:
            with suppress(Exception):
                await noting
            raise

    async def _write_down(self, order: Order, steps: Flow[Task], *, again: bool) -> Task | None:
        queue = self._pools[catalog.get_model(order.model).pool]
        try:
            task = await drive_async(steps, self._client.send, WALL.now() + ANSWER_SECONDS)
        except (ConnectionFailedError, RateLimitError) as back:
            # It never left, or the service takes nothing now.
            self.errors[type(back).__name__] += 1
            await self._journal.withdraw(order.id)
            self.trouble = str(back)
            queue.cool(back.retry_after if isinstance(back, RateLimitError) else None)
            return None
        except InDoubtError as lost:
            self.errors[type(lost).__name__] += 1
            await self._journal.doubt(order.id, str(lost))
            queue.look.set()
            raise endings.in_doubt() from lost
        except (APIStatusError, InvalidUsageError) as refusal:
            self.errors[type(refusal).__name__] += 1
            await self._journal.withdraw(order.id)
            queue.look.set()
            if again:
                return None
            self.trouble = str(refusal)
            raise endings.refused(refusal) from refusal
        await self._journal.accept(order.id, task)
        await self._journal.flush()
        self.trouble, queue.waves = "", 0
        return task

    async def _take_slot(self, order: Order, pool: Pool, until: float) -> None:
        """Wait for a slot in the order of asking; raises `OrderEndedError` when there is none until a moment."""
        queue = self._pools[pool.name]
        queue.waiting += 1
        try:
            async with queue.turn:
                while True:
                    pause = min(queue.pause(), max(0.0, until - WALL.now()))
                    if pause:
                        queue.note_none()
                    await asyncio.sleep(pause)
                    if WALL.now() >= until:
                        raise endings.unreachable(self.trouble or "no slot became free")
                    queue.look.clear()
                    if await self._journal.intend(order.id, pool):
                        queue.leaving += 1
                        return
                    queue.note_none()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(SLOT_LOOK):
                            await queue.look.wait()
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                queue.note_none()


class _PoolQueue:
    """The orders that wait for a slot of one pool: one of them looks, the others stand behind it."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.look = asyncio.Event()
        self.waiting = 0
        self.waves = 0
        # How many submits have a slot and have not left, and that there is none of them for a slot given back.
        self.leaving = 0
        self.refilled = asyncio.Event()
        self.refilled.set()
        self._until = 0.0

    def note_left(self) -> None:
        """Note that a submit which had its slot is on its way."""
        self.leaving -= 1
        self.note_none()

    def note_none(self) -> None:
        """Note that no order can have a slot now that was given back."""
        if not self.leaving:
            self.refilled.set()

    def cool(self, asked: float | None) -> None:
        """Let no submit leave for a while: one refusal speaks for all that were under way."""
        now = WALL.now()
        if now >= self._until:
            self.waves += 1
        pause = retry.backoff(self.waves) if asked is None else min(asked, retry.LONGEST_RETRY_AFTER)
        self._until = max(self._until, now + pause)

    def pause(self) -> float:
        """Say for how many seconds no submit leaves."""
        return max(0.0, self._until - WALL.now())
