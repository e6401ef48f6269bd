"""Where assistants' images are made: a folder with a ledger, and a worker that runs while there is work.

Every image is a job of the ledger before its submit leaves, so a lost answer, a cancelled call or a killed process
leaves an image that is paid once: the same wish finds it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fluxwerk import catalog
from fluxwerk.batch import plan
from fluxwerk.batch.run import EndReason, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.worker import Worker
from fluxwerk.catalog.rows import Model
from fluxwerk.client.client import AsyncClient
from fluxwerk.errors import ConflictError, FluxwerkError, InvalidUsageError
from fluxwerk.ledger import listing
from fluxwerk.ledger.database import Row
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import UNFINISHED, Job, Stage, read_job
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.mcp.caps import SpendingCaps
from fluxwerk.mcp.wish import Wish
from fluxwerk.storage import Folder
from fluxwerk.types import Json, Request

NAME = "{index:05}-{model}-{seed}.{ext}"
PENDING, GIVEN = "pending", "given"
STOPPED = "stopped"
OVER = (Stage.SAVED, Stage.FAILED)
ENDED = (*OVER, Stage.DOUBTFUL)
NOT_SUBMITTED = "It was not submitted, and cost nothing"
# Seconds for what is in flight when the client leaves: a submit that is cut off would be in doubt.
DRAIN_SECONDS = 2.0
# Seconds after which a planned image counts as left behind by a process that ended.
FORGOTTEN_SECONDS = 60.0

OnProgress = Callable[[str, Job], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WishResult:
    """What became of a wish: the jobs of it, as rows of the ledger, and the tag by which it is found again."""

    tag: str
    rows: Sequence[Row]


class ImageMaker:
    """Makes images into one folder, each at most once for each wish, within the caps.

    `read` names folders beside it whose files may be sent as input.  With `offline` the service charges nothing, and
    forgets its tasks when this process ends.
    """

    def __init__(
        self,
        client: AsyncClient,
        folder: Path,
        *,
        caps: SpendingCaps | None = None,
        read: Sequence[Path] = (),
        offline: bool = False,
    ) -> None:
        self.client = client
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.caps = caps or SpendingCaps()
        self.read = tuple(one.resolve() for one in read)
        self._offline = offline
        # Placeholders and real images do not share a ledger.
        self.ledger_file = self.folder / ("offline.ledger" if offline else "images.ledger")
        self.ledger = Ledger.open(self.ledger_file)
        self._saver = Saver(Folder(self.folder), NAME)
        self._inputs = Inputs(self.ledger.database)
        self._planning = asyncio.Lock()
        self._waiting: dict[int, asyncio.Queue[RunProgress]] = {}
        self._asked_again: set[int] = set()
        self._worker: Worker | None = None
        self._work: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ImageMaker]:
        """Work for as long as the context lasts; what an earlier process has paid for is collected first."""
        try:
            self._settle_base()
            self._give_up_planned()
            if self.ledger.budget.sums().count(*UNFINISHED):
                self._begin()
            yield self
        finally:
            if self._worker:
                self._worker.stop()
            if self._work:
                await self._work
            await self.client.close()
            self.ledger.close()

    async def make(self, wish: Wish, request_id: str | None, on_progress: OnProgress) -> WishResult:
        """Have the images of a wish made, or find those that were made of it before and not yet handed over.

        With a `request_id` they are found under it, in every later process too.  Raises `InvalidUsageError` for what
        may not be spent.
        """
        async with self._planning:
            result = await asyncio.to_thread(self._ordered, wish, request_id)
        mine: asyncio.Queue[RunProgress] = asyncio.Queue()
        # A doubt may be settled by sending the submit again, where the server keeps its key.
        open_ = {row["id"] for row in result.rows if row["stage"] not in OVER}
        self._waiting.update(dict.fromkeys(open_, mine))
        try:
            await self._watch(mine, set(open_), on_progress)
        finally:
            for job in open_:
                self._waiting.pop(job, None)
        rows = [self.ledger.row(row["id"]) for row in result.rows]
        self._settle_costs(rows)
        return WishResult(result.tag, rows)

    def hand_over(self, result: WishResult) -> None:
        """Note that the answer has left: the same wish said again means further images, unless some are still open."""
        if all(row["stage"] in OVER for row in result.rows):
            self.ledger.remember(**{_answer(result.tag): GIVEN})

    def image(self, identity: int) -> Row:
        """Find an earlier image; raises `InvalidUsageError`."""
        return self.ledger.row(identity)

    def latest(self, most: int, model: str | None = None) -> list[Row]:
        """List the images that were made last, the newest first."""
        return listing.latest(self.ledger.database, most, model)

    async def _watch(self, mine: asyncio.Queue[RunProgress], waiting: set[int], on_progress: OnProgress) -> None:
        for identity in waiting:
            # A worker that was at work already may have ended it before anybody listened.
            job = self.ledger.job(identity)
            if job.stage in OVER:
                mine.put_nowait(RunProgress(job.stage, job))
        if waiting:
            self._begin()
        while waiting:
            progress = await mine.get()
            assert progress.job is not None
            await on_progress(progress.kind, progress.job)
            if progress.kind in ENDED or progress.kind == STOPPED:
                waiting.discard(progress.job.id)

    def _settle_costs(self, rows: Sequence[Row]) -> None:
        costs = self.caps.session_costs
        for job in map(read_job, rows):
            if job.id in costs and job.cost is not None:
                costs[job.id] = job.cost

    def _ordered(self, wish: Wish, request_id: str | None) -> WishResult:
        if request_id:
            tag = f"id {request_id}"
            known = listing.tagged(self.ledger.database, tag)
            if known and self.ledger.setting(f"wish {tag}") != wish.digest:
                raise InvalidUsageError(
                    f"request_id {request_id!r} was used for another request; use a new one for a new image."
                )
        else:
            tag, known = self._found(wish)
        if not known:
            self.ledger.remember(**{f"wish {tag}": wish.digest, _answer(tag): PENDING})
            row: dict[str, Json] = {**wish.row, "tag": tag}
            plan(
                self.ledger,
                [row],
                duplicates="keep",
                check=lambda transaction: self.caps.check(transaction, wish.estimate),
            )
            known = listing.tagged(self.ledger.database, tag)
            share = (wish.estimate or 0) / len(known) if wish.estimate else None
            self.caps.session_costs.update({row["id"]: share for row in known if share is not None})
        return WishResult(tag, known)

    def _found(self, wish: Wish) -> tuple[str, list[Row]]:
        """Find the jobs of a wish whose answer was lost, or choose the tag of a new one."""
        number = 1
        while True:
            tag = f"wish {wish.digest} {number}"
            known = listing.tagged(self.ledger.database, tag)
            if not known:
                return tag, []
            lost = self.ledger.setting(_answer(tag)) == PENDING and not any(row["id"] in self._waiting for row in known)
            if lost and any(row["stage"] != Stage.FAILED for row in known):
                return tag, known
            number += 1

    def _begin(self) -> None:
        """Have the worker look for work, or start one."""
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run())
        elif self._worker:
            self._worker.wake()

    async def _run(self) -> None:
        while True:
            self._worker = worker = self._new_worker()
            reason: str | None = None
            try:
                end = await worker.run()
            except FluxwerkError as error:
                reason = str(error)
            else:
                reason = None if end.reason is EndReason.FINISHED else end.text
            if not self._let_go(reason):
                return

    def _new_worker(self) -> Worker:
        def prepare(job: Job) -> tuple[Model, Request]:
            return catalog.get_model(job.model), self._inputs.fill_in(job)

        access = self.client.access
        options = RunOptions(offline=self._offline, drain=DRAIN_SECONDS, delivery_hosts=access.delivery_hosts)
        return Worker(
            self.ledger, self.client.send, access.base, prepare, self._saver, options, self._report, self.client.history
        )

    def _let_go(self, reason: str | None) -> bool:
        """Look at what a run has left: after a reason to stop nothing stays planned, else it goes on."""
        if reason is not None:
            for row in list(self.ledger.rows(Stage.PLANNED)):
                with suppress(ConflictError):
                    self.ledger.refused(read_job(row), InvalidUsageError(f"{NOT_SUBMITTED}: {reason}"))
        goes_on = False
        for identity, queue in list(self._waiting.items()):
            job = self.ledger.job(identity)
            if job.stage is Stage.DOUBTFUL and reason is None and job.id not in self._asked_again:
                # The next run asks the server whether it keeps keys, before anything else.
                self._asked_again.add(job.id)
                goes_on = True
            elif job.stage in ENDED:
                queue.put_nowait(RunProgress(job.stage, job))
            elif reason is None:
                goes_on = True
            else:
                text = f"{reason} The image is paid for; the same request collects it later."
                queue.put_nowait(RunProgress(STOPPED, job, text))
        return goes_on

    def _settle_base(self) -> None:
        """Keep the tasks of one service together: another one does not know them."""
        base = "offline" if self._offline else self.client.access.base
        before = self.ledger.setting("base")
        if before not in (None, base) and self.ledger.budget.sums().count(*UNFINISHED, Stage.DOUBTFUL):
            raise InvalidUsageError(
                f"{self.ledger_file} has unfinished images of {before}, which {base} does not know; finish them first "
                f"with --base-url {before}, or name another folder with --output."
            )
        self.ledger.remember(base=base)

    def _give_up_planned(self) -> None:
        """Give up what an earlier process planned and never submitted; nobody waits for it any more."""
        with self.ledger.database.read() as transaction:
            since = transaction.now() - FORGOTTEN_SECONDS
        for row in list(self.ledger.rows(Stage.PLANNED)):
            if row["moved"] < since:
                with suppress(ConflictError):
                    self.ledger.refused(read_job(row), InvalidUsageError(f"{NOT_SUBMITTED}: its process had ended"))

    def _report(self, progress: RunProgress) -> None:
        queue = self._waiting.get(progress.job.id) if progress.job else None
        if queue:
            queue.put_nowait(progress)


def _answer(tag: str) -> str:
    return f"answer {tag}"
