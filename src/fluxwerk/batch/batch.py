"""`Batch`: the command line's words for Python, with results as they finish."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from fluxwerk import catalog
from fluxwerk.batch.planner import Plan, plan
from fluxwerk.batch.run import ImageSaver, OnProgress, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.template import DEFAULT
from fluxwerk.batch.worker import Worker
from fluxwerk.catalog.rows import Model
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.client.client import AsyncClient
from fluxwerk.errors import FluxwerkError, InvalidUsageError, UnknownPriceError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import UNFINISHED, Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.storage import Storage, open_storage
from fluxwerk.types import Json, Request

OFFLINE = "offline"
ENDINGS = frozenset({"saved", "failed", "in doubt"})


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How one job ended: `saved` if its image is in the storage, else `text` says why not."""

    job: Job
    kind: str
    saved: Saved | None = None
    text: str = ""


class Batch:
    """A ledger with what a run of it needs; running it again goes on where it stopped, whatever stopped it.

    `ledger` is its file, `output` a folder or a bucket URL, `name` the template of file names, `max_cost` the cap in
    credits for everything this ledger ever buys, over all processes.  `client` is whose key pays; by default one with
    the key in BFL_API_KEY.  Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str] | Ledger,
        *,
        output: str | os.PathLike[str] | Storage = "images",
        client: AsyncClient | None = None,
        name: str = DEFAULT,
        provenance: str = "sidecar",
        prompts: bool = True,
        overwrite: bool = False,
        max_cost: Decimal | float | None = None,
        options: RunOptions | None = None,
        on_progress: OnProgress = lambda _: None,
        saver: ImageSaver | None = None,
    ) -> None:
        storage = open_storage(output) if isinstance(output, str | os.PathLike) else output
        self._saver = saver or Saver(storage, name, provenance=provenance, prompts=prompts, overwrite=overwrite)
        self._options = options or RunOptions()
        self._client = client
        self._on_progress = on_progress
        self._worker: Worker | None = None
        self._stops = 0
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger.open(ledger)
        if max_cost is not None:
            self.ledger.budget.set_cap(Decimal(str(max_cost)))

    def plan(
        self,
        manifest: str | os.PathLike[str] | Iterable[Mapping[str, Json]],
        *,
        model: str = DEFAULT_MODEL,
        duplicates: str = "refuse",
        **options: Json,
    ) -> Plan:
        """Check a manifest, or a list of rows, and plan its jobs; `options` hold where a row is silent."""
        return plan(self.ledger, manifest, model=model, options=options, duplicates=duplicates)

    def run(self) -> Sums:
        """Carry every job to the storage and return the sums; not inside a running event loop."""
        asyncio.run(self.work())
        return self.sums()

    async def work(self) -> str:
        """Carry every job to the storage; returns why it ended early, or nothing."""
        self._check()
        client = self._client or AsyncClient()
        self._settle_base(client.access.base)
        inputs = Inputs(self.ledger.database)

        def prepare(job: Job) -> tuple[Model, Request]:
            return catalog.get_model(job.model), inputs.fill_in(job)

        self._worker = Worker(
            self.ledger,
            client.send,
            client.access.base,
            prepare,
            self._saver,
            self._options,
            self._on_progress,
            client.experience,
        )
        for _ in range(self._stops):
            self._worker.stop()
        try:
            await self._note_balance(client)
            ended = await self._worker.run()
            await self._note_balance(client)
            return ended
        finally:
            client.experience.save()
            if self._client is None:
                await client.close()

    async def results(self) -> AsyncGenerator[BatchResult]:
        """Work, and yield each job as it ends; leaving the loop stops the work, and loses nothing."""
        ended: asyncio.Queue[BatchResult | None] = asyncio.Queue()
        on_progress = self._on_progress

        def listen(progress: RunProgress) -> None:
            on_progress(progress)
            if progress.job and progress.kind in ENDINGS:
                ended.put_nowait(BatchResult(progress.job, progress.kind, progress.saved, progress.text))

        self._on_progress = listen
        work = asyncio.create_task(self.work())
        work.add_done_callback(lambda _: ended.put_nowait(None))
        try:
            while result := await ended.get():
                yield result
        finally:
            self._on_progress = on_progress
            if not work.done():
                self.stop()
                self.stop()
            await work

    def stop(self, reason: str = "stopped") -> None:
        """Submit nothing more and collect what is in flight; called again, stop at once and lose nothing."""
        if self._worker:
            self._worker.stop(reason)
        else:
            self._stops += 1

    def sums(self) -> Sums:
        """Count the jobs of each stage and their money."""
        return self.ledger.budget.sums()

    def close(self) -> None:
        """Let go of the ledger."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        """Refuse what could not be kept: a cap over prices that nobody knows."""
        unpriced = self.ledger.budget.unpriced() if self.sums().cap is not None else []
        if unpriced:
            names = ", ".join(f"{jobs} × {model}" for model, jobs in unpriced)
            raise UnknownPriceError(
                f"A cap cannot be kept over jobs whose price is not public ({names}): plan them with --assume-price, "
                "or lift the cap with --max-cost none."
            )

    def _settle_base(self, base: str) -> None:
        """Keep the tasks of one service together: another one does not know them."""
        place = OFFLINE if self._options.offline else base
        before = self.ledger.setting("base")
        if before not in (None, place):
            if OFFLINE in (before, place):
                raise InvalidUsageError(
                    "An offline server's placeholders and the service's images do not belong into one ledger; "
                    "plan the manifest into another one with --ledger."
                )
            if self.sums().count(*UNFINISHED, Stage.DOUBTFUL):
                raise InvalidUsageError(
                    f"This ledger has tasks at {before}, which {base} does not know; go on there first."
                )
        self.ledger.remember(base=place)

    async def _note_balance(self, client: AsyncClient) -> None:
        """Ask what the account has left, to compare the bills later; nobody has to answer."""
        try:
            balance = await client.credits(timeout=5.0)
        except FluxwerkError:
            return
        self.ledger.budget.note_balance(balance)


def run_options(**given: Any) -> RunOptions:
    """Make options, leaving out what was not said."""
    return replace(RunOptions(), **{name: value for name, value in given.items() if value is not None})


def default_ledger(manifest: str | os.PathLike[str]) -> Path:
    """Name the ledger of a manifest: prompts.csv is kept in prompts.ledger beside it."""
    return Path(manifest).with_suffix(".ledger")
