"""`Batch`: plan and run a ledger from Python, with results as they finish."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

from fluxwerk import catalog
from fluxwerk.batch.expansion import Values
from fluxwerk.batch.planner import Plan, plan
from fluxwerk.batch.run import EndReason, ImageSaver, OnProgress, RunEnd, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.template import DEFAULT_TEMPLATE
from fluxwerk.batch.worker import Worker
from fluxwerk.catalog.rows import Model
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.client.client import AsyncClient
from fluxwerk.errors import FluxwerkError, InvalidUsageError, UnknownPriceError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import UNFINISHED, Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.storage import Storage, open_storage
from fluxwerk.types import Json, Request

OFFLINE = "offline"
END_KINDS = frozenset({"saved", "failed", "in doubt"})


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How one job ended: `saved` if its image is in the storage, else `text` says why not, and `failure` in a word."""

    job: Job
    kind: str
    saved: Saved | None = None
    text: str = ""
    failure: FailureKind | None = None


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
        name: str = DEFAULT_TEMPLATE,
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
        encoding: str | None = None,
        variables: Iterable[Values] = (),
        **options: Json,
    ) -> Plan:
        """Check a manifest, or a list of rows, and plan its jobs; `options` hold where a row names none.

        `encoding` is that of a text file, UTF-8 by default; `variables` are tables of values for `{{names}}` in it.
        Raises `InvalidUsageError` with the line of every fault.
        """
        return plan(
            self.ledger,
            manifest,
            model=model,
            options=options,
            duplicates=duplicates,
            encoding=encoding,
            variables=variables,
        )

    def run(self) -> Sums:
        """Work on every job until its image is stored, and return the sums; not inside a running event loop."""
        asyncio.run(self.work())
        return self.sums()

    async def work(self) -> RunEnd:
        """Work on every job until its image is stored, and return why the run ended.

        Raises `InvalidUsageError` or `StorageError` before the first submit if no image can be stored.
        """
        self._check()
        self._buy_anew()
        client = self._client or AsyncClient()
        self._settle_base(client.access.base)
        self.ledger.doubts.use_account(hashlib.sha256(client.access.key.encode()).hexdigest())
        inputs = Inputs(self.ledger.database)

        def prepare(job: Job) -> tuple[Model, Request]:
            return catalog.get_model(job.model), inputs.fill_in(job)

        self._worker = Worker(
            self.ledger,
            client.send,
            client.access.base,
            prepare,
            self._saver,
            replace(self._options, delivery_hosts=client.access.delivery_hosts),
            self._on_progress,
            client.history,
        )
        for _ in range(self._stops):
            self._worker.stop()
        try:
            await self._note_balance(client)
            end = await self._worker.run()
            if end.reason is not EndReason.TIMED_OUT:
                await self._note_balance(client)
            return end
        finally:
            client.history.save()
            if self._client is None:
                await client.close()

    async def results(self) -> AsyncGenerator[BatchResult]:
        """Run, and yield each job as it ends; leaving the loop stops the run, and loses nothing."""
        ended: asyncio.Queue[BatchResult | None] = asyncio.Queue()
        on_progress = self._on_progress

        def listen(progress: RunProgress) -> None:
            on_progress(progress)
            if progress.job and progress.kind in END_KINDS:
                ended.put_nowait(
                    BatchResult(progress.job, progress.kind, progress.saved, progress.text, progress.failure)
                )

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

    def stop(self, text: str = "stopped") -> None:
        """Submit nothing more and collect what is in flight; called again, stop at once and lose nothing."""
        if self._worker:
            self._worker.stop(text)
        else:
            self._stops += 1

    def sums(self) -> Sums:
        """Count the jobs of each stage and their money."""
        return self.ledger.budget.sums()

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        """Refuse a cap over jobs whose price is not public: it could not hold."""
        unpriced = self.ledger.budget.unpriced() if self.sums().cap is not None else []
        if unpriced:
            names = ", ".join(f"{jobs} × {model}" for model, jobs in unpriced)
            raise UnknownPriceError(
                f"The cap cannot hold, because the price of these jobs is not public: {names}. Plan them with "
                "--assume-price CREDITS, or lift the cap with --max-cost none."
            )

    def _buy_anew(self) -> None:
        """Plan again, within `rebuy`, images that were charged and lost in earlier runs."""
        if self._options.rebuy:
            lost = [row["id"] for row in self.ledger.rows(Stage.FAILED) if row["kind"] == FailureKind.IN_DOUBT]
            for job in lost[: self._options.rebuy]:
                self.ledger.retry(job)
            self._options = replace(self._options, rebuy=max(0, self._options.rebuy - len(lost)))

    def _settle_base(self, base: str) -> None:
        """Keep the tasks of one service together: another one does not know them."""
        place = OFFLINE if self._options.offline else base
        before = self.ledger.setting("base")
        if before not in (None, place):
            if OFFLINE in (before, place):
                raise InvalidUsageError(
                    f"This ledger holds jobs of {_place(before)}, and this run uses {_place(place)}. One ledger keeps "
                    "either placeholders or real images; plan the manifest into another one with --ledger FILE."
                )
            if self.sums().count(*UNFINISHED, Stage.DOUBTFUL):
                raise InvalidUsageError(
                    f"This ledger has unfinished tasks at {before}, which {base} does not know; "
                    f"finish them first with --base-url {before}."
                )
        self.ledger.remember(base=place)

    async def _note_balance(self, client: AsyncClient) -> None:
        """Note the account's balance, to compare bills later; a service that does not answer is left alone."""
        try:
            balance = await client.credits(timeout=5.0)
        except FluxwerkError:
            return
        self.ledger.budget.note_balance(balance)


def run_options(**given: Any) -> RunOptions:
    """Make run options; `None` leaves the default."""
    return replace(RunOptions(), **{name: value for name, value in given.items() if value is not None})


def _place(base: str | None) -> str:
    return "an offline server" if base == OFFLINE else str(base)
