"""The gateway's engine: it submits each order once, waits, downloads, and remembers in its journal what is paid."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from fluxwerk import catalog
from fluxwerk.client.client import AsyncClient
from fluxwerk.client.session import WebhookListener
from fluxwerk.drive import WALL, drive_async, run_async, steps
from fluxwerk.engines import FullAbilities, Health, Order, RenderProgress, Report
from fluxwerk.engines.upstream import endings
from fluxwerk.engines.upstream.journal import UpstreamJournal, UpstreamResult
from fluxwerk.engines.upstream.submitter import UpstreamSubmitter
from fluxwerk.errors import (
    APIStatusError,
    FluxwerkError,
    LinkExpiredError,
    TaskFailedError,
    TaskTimeoutError,
    TransportError,
    UntrustedURLError,
)
from fluxwerk.polling.reliability import WebhookReliability
from fluxwerk.protocol import flow, retry
from fluxwerk.types import Event, Status, Task

# Seconds: for one order from its submit to its image, for one download, and how often the account is looked at.
PATIENCE = 3600.0
DOWNLOAD_SECONDS = 300.0
ACCOUNT_LOOK = 60.0
# A link that is dead together with the fresh one is asked for so many times.
DEAD_LINKS = 3
# A paid task is asked for again after trouble of these kinds, until patience is over.
PASSING = (APIStatusError, TransportError, TaskTimeoutError, LinkExpiredError)

log = logging.getLogger("fluxwerk.engines.upstream")


class UpstreamEngine(FullAbilities):
    """A `LiveEngine` over another service of the same API, on the account of `client`.

    What it may not forget is in `journal`: an order that it is given again after a crash is not paid again.  The
    service is asked to send its webhooks to `webhook`: then polls are few, and a webhook that is lost, forged or late
    changes nothing but speed.
    """

    name = "upstream"
    # Of these some wait for a slot, so that none stays free, and some are downloaded.
    capacity = 96

    def __init__(
        self,
        client: AsyncClient,
        journal: UpstreamJournal,
        *,
        patience: float = PATIENCE,
        webhook: WebhookListener | None = None,
    ) -> None:
        self._client = client
        self._journal = journal
        self._patience = patience
        self._webhook = webhook
        self._reliability = WebhookReliability()
        self._submitter = UpstreamSubmitter(client, journal, webhook.options if webhook else {})
        self._account_trouble = ""
        self._abandoned: set[asyncio.Task[None]] = set()

    @property
    def errors(self) -> Counter[str]:
        """What the service, or the way to it, has done wrong since the start, by the name of the error."""
        return self._submitter.errors

    @property
    def account(self) -> str:
        """Which account at the service pays, by a name that is no key."""
        return self._journal.account

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Watch the account for as long as the context lasts."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            for task in (watching, *self._abandoned):
                task.cancel()
            await asyncio.gather(watching, *self._abandoned, return_exceptions=True)
            await self._client.close()

    def health(self) -> Health:
        """Return ready, or degraded with the reason why the service took nothing lately."""
        trouble = self._submitter.trouble or self._account_trouble
        details = {"upstream": self._client.access.base, **({"reason": trouble} if trouble else {})}
        return Health("degraded" if trouble else "ready", serving=True, details=details)

    async def paint(self, order: Order, report: Report) -> bytes:
        """Return the image that the service makes; raises `OrderEndedError` as the service ends the task."""
        until = WALL.now() + self._patience
        try:
            task, age = await self._find_or_submit(order, until)
            report(RenderProgress(0.0))
            return await self._collect(order, task, report, WALL.now() - age, until)
        except asyncio.CancelledError:
            await self._abandon(order, until)
            raise

    async def _find_or_submit(self, order: Order, until: float) -> tuple[Task, float]:
        """Return the order's task and how many seconds ago it was submitted; one that is paid is not paid again."""
        entry = await self._journal.find(order.id)
        if entry and entry.doubt:
            raise endings.in_doubt()
        if entry and entry.task is None:
            # The process that sent it has died before it could write the answer down.
            found = await self._submitter.repeat(order, entry)
            if found:
                return found, 0.0
        if entry is None or entry.task is None:
            return await self._submitter.submit(order, until), 0.0
        return entry.task, max(0.0, time.time() - (entry.submitted or time.time()))

    async def _collect(self, order: Order, task: Task, report: Report, began: float, until: float) -> bytes:
        """Wait for a task that is paid, and download its image; trouble that passes is waited out."""
        failures, dead = 0, 0
        while True:
            try:
                status = await self._wait(order, task, report, began, until)
                await self._end(order, UpstreamResult(status.cost, status.seed, status.prompt, status.engine))
                report(RenderProgress(1.0, is_fetched=True))
                # A free slot costs more than a late image.
                await self._submitter.refilled(_pool_of(order))
                return await self._download(status, until)
            except TaskFailedError as error:
                self.errors[type(error).__name__] += 1
                await self._end(order, UpstreamResult(error.cost))
                raise endings.failed(error) from error
            except (UntrustedURLError, *PASSING) as error:
                self.errors[type(error).__name__] += 1
                failures, dead = failures + 1, dead + isinstance(error, LinkExpiredError)
                pause = retry.backoff(failures)
                passes = not isinstance(error, UntrustedURLError) and dead < DEAD_LINKS
                if not passes or WALL.now() + pause >= until:
                    await self._end(order, UpstreamResult())
                    raise endings.given_up(error) from error
                log.warning("Order %s: %s", order.id, error)
                await asyncio.sleep(pause)

    async def _wait(self, order: Order, task: Task, report: Report, began: float, until: float) -> Status:
        def observe(event: Event) -> None:
            if event.status and event.status.progress is not None:
                report(RenderProgress(event.status.progress))

        pool = _pool_of(order)
        crowded = partial(self._submitter.is_crowded, pool)
        hook = self._webhook if catalog.takes_webhooks(order.model) else None
        if hook:
            hook.expect(task)
        reliability = self._reliability if hook else None
        plan = self._client.history.plan(task, WALL.now, WALL.now() - began, crowded=crowded, webhook=reliability)
        asking = flow.wait(task, self._client.access.base, observe, plan)
        listen = partial(hook.wakeup.listen, task.id) if hook else lambda: None
        return await run_async(steps(asking, until, WALL, listen=listen), self._client.send)

    async def _download(self, status: Status, until: float) -> bytes:
        access = self._client.access
        fetching = flow.download(status, access.base, delivery_hosts=access.delivery_hosts)
        return await drive_async(fetching, self._client.send, min(until, WALL.now() + DOWNLOAD_SECONDS))

    async def _end(self, order: Order, result: UpstreamResult) -> None:
        await self._journal.end(order.id, result)
        self._submitter.freed(_pool_of(order))

    async def _abandon(self, order: Order, until: float) -> None:
        """Watch a task that nobody wants any more: it holds its slot until the service has ended it."""
        entry = await self._journal.find(order.id)
        if entry is None or entry.task is None:
            return
        attending = asyncio.create_task(self._attend(order, entry.task, until))
        self._abandoned.add(attending)
        attending.add_done_callback(self._abandoned.discard)

    async def _attend(self, order: Order, task: Task, until: float) -> None:
        cost = None
        try:
            cost = (await self._wait(order, task, lambda _: None, WALL.now(), until)).cost
        except TaskFailedError as error:
            cost = error.cost
        except FluxwerkError as error:
            log.warning("Order %s was given up, and its task can no longer be followed: %s", order.id, error)
        await self._end(order, UpstreamResult(cost))

    async def _watch(self) -> None:
        """Look at the account now and then: a key that is refused is known before the first submit."""
        while True:
            try:
                await self._client.credits(timeout=DOWNLOAD_SECONDS)
            except FluxwerkError as error:
                self._account_trouble = str(error)
            else:
                self._account_trouble = ""
            await asyncio.sleep(ACCOUNT_LOOK)


def _pool_of(order: Order) -> str:
    return catalog.get_model(order.model).pool
