"""Every task, and the moves it makes: each is one transaction that names where it starts from.

A move returns whether it happened.  One that comes too late, from a worker that lost the task to another or after its
owner cancelled it, changes nothing.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from fluxwerk.errors import FluxwerkError
from fluxwerk.imagefile import SUFFIX
from fluxwerk.ledger.database import Row, Statement, Transaction, Values
from fluxwerk.protocol.wire import dump
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.state import charges, rows
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.booking import Booking, Bookings
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.queue import Slots, TaskQueue
from fluxwerk.server.state.removals import Removals
from fluxwerk.server.state.rows import NEVER, credits_of
from fluxwerk.server.state.search import Search
from fluxwerk.server.state.statements import (
    ADVANCE,
    BEGIN,
    BUSY,
    CLAIM,
    COUNT,
    DISCARD_UPSTREAM,
    DISCARDED,
    DROPPABLE,
    END,
    FIND,
    FIND_ALL,
    FIND_REPEATED,
    FINISH,
    FINISHED,
    FORGET_UPSTREAM,
    FORGOTTEN,
    HELD,
    IS_UPSTREAM,
    LOCK,
    NOTE_WEBHOOK,
    REQUEUE,
    RETURN_WEBHOOK,
    SELECT,
    STICK,
    TAKE_WEBHOOK,
    TAKE_WEBHOOKS,
    VACATE,
    WEBHOOK_DUE,
)
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json

# How long an image outlives its task's end, in seconds: six times as long as a link to it lives.
KEEP = 3600.0
# How many tasks are dropped at a time, so that nobody waits long for it.
DROPPED_AT_ONCE = 100
# What reading a row raises when it is damaged, or written by a release with other models or fields.
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, FluxwerkError)

log = logging.getLogger("fluxwerk.server")


class Tasks:
    """The tasks of a store; what has ended is kept for `keep` seconds, and `queue` of an account's may wait.

    A move that lets go of files notes them in `removals`.
    """

    def __init__(self, store: Store, keep: float = KEEP, queue: int = 0) -> None:
        self._store = store
        self._database = store.database
        self._keep = keep
        self.queue = TaskQueue(store.database, queue)
        self._bookings = Bookings(store, self.queue, keep)
        self.removals = Removals(store.database, store.files)

    def accept(self, job: TaskRecord, account: Account) -> Slots | None:
        """Book a task: its slot, its cost, its row and its webhook, or nothing of them.

        Returns the slots that are held with its own, if it has one.  Raises `SlotsTakenError`, `CreditsSpentError`,
        `SubmitRateError` and `RepeatedSubmitError`.
        """
        return self._bookings.book(job, account)

    def accept_all(self, bookings: Sequence[Booking]) -> list[Slots] | None:
        """Book several tasks in one exchange, or none of them, `None`, if each has to be booked alone."""
        return self._bookings.book_all(bookings)

    def claim(self, worker: str) -> TaskRecord | None:
        """Take up the next task that waits, for a worker of this process."""
        while row := self._changed(CLAIM, worker=worker):
            # A row that cannot be read is put aside, and the next one is taken.
            job = self._read(row)
            if job is not None:
                return job
        return None

    def begin(self, identity: str, worker: str) -> TaskRecord | None:
        """Take up one task for a worker, also from a worker that lost it; `None` if it has ended."""
        row = self._changed(BEGIN, id=identity, worker=worker)
        return self._read(row) if row else None

    def advance(self, job: TaskRecord, progress: float, preview: bytes | None, now: float) -> bool:
        """Record how far the engine is."""
        with self._database.write() as transaction:
            values = {"id": job.task.id, "fence": job.fence, "now": now}
            moved = transaction.run(ADVANCE, progress=progress, preview=preview, **values) > 0
        if moved and job.began is None:
            job.began = now
        return moved

    def vacate(self, job: TaskRecord, now: float) -> bool:
        """Let a task hold its slot no longer, though it has not ended; says whether another one has the slot now."""
        with self._database.write() as transaction:
            if not transaction.run(VACATE, id=job.task.id, fence=job.fence, now=now):
                return False
            return self._queue(transaction, job.account, job.model.pool, now) > 0

    def finish(self, job: TaskRecord, image: str, size: int, now: float, ready_at: float) -> bool:
        """Say where the image of a task is; it is shown from `ready_at` on.

        A move that was made already, but whose answer was lost, can be made again.
        """
        values = {"id": job.task.id, "fence": job.fence, "at": ready_at, "keep": self._keep}
        with self._database.write() as transaction:
            if transaction.run(FINISH, image=image, image_bytes=size, engine=job.engine, now=now, **values):
                transaction.run(WEBHOOK_DUE, id=job.task.id, at=ready_at)
                self.removals.note(transaction, input_files(job))
                if job.stage == "waiting":
                    # An answer that was in the storage already.
                    self.queue.leave(transaction, job.account)
                self._release(transaction, job, now, ready_at)
            elif not transaction.one(FINISHED, id=job.task.id, image=image):
                return False
        job.stage, job.word, job.ready_at, job.image, job.settled = "ended", "Ready", ready_at, image, job.task.cost
        return True

    def end(self, job: TaskRecord, ending: Ending, now: float, at: float, fence: int | None = None) -> bool:
        """End a task without an image, and return its credits unless they stay booked.

        Only its worker names a `fence`; whoever else ends it locks the worker out.
        """
        own = "" if fence is None else "and fence = :fence"
        values: dict[str, Any] = {"id": job.task.id, "now": now}
        with self._database.write() as transaction:
            found = transaction.one(LOCK.format(own=own), **values, **({} if fence is None else {"fence": fence}))
            if found is None:
                return False
            cost = found["cost"] or 0
            booked = cost if found["settled"] is None else found["settled"]
            # What another service was asked for stays booked, whoever gives the task up.
            paid = ending.paid or transaction.one(IS_UPSTREAM, id=job.task.id) is not None
            settled = cost if paid else 0
            details = None if ending.details is None else dump(ending.details).decode()
            told = {"word": ending.word, "details": details, "settled": settled}
            transaction.run(END, id=job.task.id, at=at, keep=self._keep, **told)
            charges.settle(transaction, job.account, job.model.name, job.accepted, settled - booked)
            transaction.run(WEBHOOK_DUE, id=job.task.id, at=at)
            if found["stage"] == "waiting":
                self.queue.leave(transaction, job.account)
            self._release(transaction, job, now, at)
            images = [found["image"]] if found["image"] else []
            self.removals.note(transaction, [*_read_inputs(job.task.id, found["inputs"]), *images])
        job.stage, job.word, job.details, job.ready_at = "ended", ending.word, ending.details, at
        job.settled, job.image = credits_of(settled), None
        return True

    def stick(self, job: TaskRecord, now: float) -> None:
        """Let a task never end; it goes as if it had ended now."""
        with self._database.write() as transaction:
            transaction.run(STICK, id=job.task.id, forget_at=now + self._keep)

    def find(self, identity: str, now: float) -> TaskRecord | None:
        """Find a task by its id."""
        (found,) = self.find_all([(identity, now)])
        return found

    def find_all(self, asked: Sequence[tuple[str, float]]) -> list[TaskRecord | None]:
        """Find tasks in one question, each by its id, at the latest of their moments."""
        # PostgreSQL refuses a text with a zero, which would look like a failure of the state; no task has no id.
        ids = ["" if "\0" in identity else identity for identity, _ in asked]
        now = max(now for _, now in asked)
        if len(ids) == 1:
            return [self._one(FIND, id=ids[0], now=now)]
        found = self._database.ask(FIND_ALL.format(among=self._database.among), ids=self._database.pack(ids), now=now)
        rows = {row["id"]: row for row in found}
        return [self._read(rows[identity]) if identity in rows else None for identity in ids]

    def find_folder(self, folder: str, now: float) -> TaskRecord | None:
        """Find a task by the folder that its links name."""
        return self._one(f"{SELECT} where folder = :folder and forget_at > :now", folder=folder, now=now)

    def find_repeated(self, account: str, key: str, now: float) -> TaskRecord | None:
        """Find an account's task by the idempotency key of its submit."""
        (found,) = self.find_all_repeated([(account, key, now)])
        return found

    def find_all_repeated(self, asked: Sequence[tuple[str, str, float]]) -> list[TaskRecord | None]:
        """Find tasks in one exchange, each by its account and the idempotency key of its submit, at a moment."""
        values = ({"account": account, "key": key, "now": now} for account, key, now in asked)
        return self._find_all(FIND_REPEATED, values)

    def search(self, account: str, wanted: Search, now: float, most: int) -> list[TaskRecord]:
        """List an account's tasks that a search finds, the newest first."""
        clause, values = wanted.clause()
        ask = f"{SELECT} where task.account = :account and forget_at > :now{clause} order by number desc limit :most"
        return self._all(ask, account=account, now=now, most=most, **values)

    def all(self, now: float) -> list[TaskRecord]:
        """List every task that is kept, the oldest first."""
        return self._all(f"{SELECT} where forget_at > :now order by number", now=now)

    def slots(self, account: str, pool: str, now: float) -> Slots:
        """Count the slots of a pool that the account's tasks hold."""
        (row,) = self._database.ask(HELD, account=account, pool=pool, now=now)
        return Slots(row["busy"], row["free"] or NEVER)

    def count(self, now: float) -> Counter[str]:
        """Count the tasks that are kept, by status."""
        return Counter({row["status"]: row["number"] for row in self._database.ask(COUNT, now=now)})

    def is_quiet(self, now: float, linger: float) -> bool:
        """Whether nothing runs, and nothing that became ready within the last `linger` seconds waits for collection."""
        return not self._database.ask(BUSY, now=now, since=now - linger)

    def tag(self, job: TaskRecord, tags: tuple[str, ...]) -> None:
        """Give a task its tags."""
        text = rows.BAR.join(("", *tags, "")) if tags else ""
        with self._database.write() as transaction:
            transaction.run("update task set tags = :tags where id = :id", tags=text, id=job.task.id)
        job.tags = tags

    def note_delivered(self, job: TaskRecord) -> bool:
        """Note that an image was collected; says whether it was the first time."""
        with self._database.write() as transaction:
            return transaction.run("update task set delivered = 1 where id = :id and delivered = 0", id=job.task.id) > 0

    def forget(self, now: float) -> None:
        """Drop tasks whose images were kept long enough; the next sweep of `removals` removes their files."""
        found = self._database.ask(FORGOTTEN, now=now, most=DROPPED_AT_ONCE)
        if found:
            self._drop(found, FORGET_UPSTREAM)

    def make_room(self, now: float) -> None:
        """Drop tasks that have ended before their time while the store has no room for more.

        Those whose image was delivered go first, then old ones.
        """
        while self._store.excess():
            found = self._database.ask(DROPPABLE, now=now, most=1)
            if not found:
                return
            self.removals.remove(self._drop(found, DISCARD_UPSTREAM))

    def _drop(self, found: list[Row], upstream: str) -> list[str]:
        """Let rows go, and return the files that go with them."""
        files = [file for row in found for file in _files_of(row)]
        with self._database.write() as transaction:
            for row in found:
                transaction.run("delete from task where id = :id", id=row["id"])
                transaction.run(upstream, id=row["id"])
            self.removals.note(transaction, files)
        return files

    def discard(self, job: TaskRecord) -> None:
        """Drop one task with its files; what the storage does not remove now is removed later."""
        self.removals.remove(self._drop(self._database.ask(DISCARDED, id=job.task.id), DISCARD_UPSTREAM))

    def take_webhook(self, job: TaskRecord, owner: str) -> bool:
        """Take a webhook for delivery, unless another process has it or it was delivered."""
        with self._database.write() as transaction:
            return transaction.run(TAKE_WEBHOOK, id=job.task.id, owner=owner) > 0

    def take_webhooks(self, owner: str, now: float, most: int) -> list[TaskRecord]:
        """Take webhooks that are due and that nobody delivers, the longest due first."""
        take = TAKE_WEBHOOKS.format(skip_locked=self._database.skip_locked)
        with self._database.write() as transaction:
            taken = [row["task"] for row in transaction.all(take, owner=owner, now=now, most=most)]
            jobs = (self._one(f"{SELECT} where task.id = :id", id=identity) for identity in taken)
            return [job for job in jobs if job is not None]

    def return_webhooks(self, owner: str, delivering: Collection[str]) -> None:
        """Let webhooks be taken again that a process has taken, except those that it delivers.

        A process whose taking was not confirmed does not know what it has.
        """
        with self._database.write() as transaction:
            held = transaction.all("select task from webhook where state = 'pending' and owner = :owner", owner=owner)
            lost = [{"id": row["task"], "owner": owner} for row in held if row["task"] not in delivering]
            transaction.run_many(RETURN_WEBHOOK, lost)

    def note_webhook(self, job: TaskRecord, webhook: OutgoingWebhook, owner: str) -> bool:
        """Write down what became of an attempt to deliver a webhook."""
        values = {"state": webhook.state, "attempts": rows.write_attempts(webhook)}
        with self._database.write() as transaction:
            return transaction.run(NOTE_WEBHOOK, id=job.task.id, owner=owner, **values) > 0

    def owed(self) -> list[TaskRecord]:
        """List the tasks that have ended and whose webhooks nobody delivers yet."""
        return self._all(f"{SELECT} where webhook.state = 'waiting' and webhook.due is not null order by webhook.due")

    def next_webhook(self) -> float | None:
        """Tell when the next webhook is due that nobody delivers."""
        found = self._database.ask("select min(due) as due from webhook where state = 'waiting'")
        due: float | None = found[0]["due"] if found else None
        return due

    def sweep(self, pools: Iterable[str], now: float) -> int:
        """Queue what waits for slots that became free as time passed, and say how many tasks that were."""
        queued = 0
        for account in self.queue.waiting():
            for pool in pools:
                with self._database.write() as transaction:
                    queued += self._queue(transaction, account, pool, now)
        return queued

    def resume(self) -> list[TaskRecord]:
        """Take over what the process before had under way, and return the tasks that were stuck.

        What was running waits again, what has lost its image is rendered again, and webhooks go on where they stood.
        """
        with self._database.write() as transaction:
            transaction.run("update task set stage = 'queued', began = null, worker = null where stage = 'running'")
            transaction.run("update webhook set state = 'waiting', owner = null where state = 'pending'")
        self._render_lost()
        return self._all(f"{SELECT} where stage = 'stuck' order by number")

    def requeue(self, job: TaskRecord) -> None:
        """Let a stuck task wait for a worker."""
        with self._database.write() as transaction:
            transaction.run(REQUEUE, id=job.task.id, never=NEVER)

    def _release(self, transaction: Transaction, job: TaskRecord, now: float, at: float) -> None:
        """Let the account's next task have the slot of one that ended, if its slot is free by now."""
        if at <= now:
            self._queue(transaction, job.account, job.model.pool, now)

    def _queue(self, transaction: Transaction, account: str, pool: str, now: float) -> int:
        queued = self.queue.release(transaction, account, pool, now)
        for identity in queued:
            job = self._one(f"{SELECT} where task.id = :id", id=identity)
            if job is not None:
                handed = self._store.hand_over(transaction, job)
                transaction.run("update task set job = :job where id = :id", job=handed, id=identity)
        return len(queued)

    def _render_lost(self) -> None:
        if self._store.files.blocks:
            # Asking a bucket about every image would take longer than anybody waits for a start.
            return
        for row in self._database.ask("select id, image, image_bytes from task where word = 'Ready'"):
            if self._store.size(row["image"]) != row["image_bytes"]:
                with self._database.write() as transaction:
                    transaction.run(REQUEUE, id=row["id"], never=NEVER)

    def _changed(self, sql: str, **values: Any) -> Row | None:
        with self._database.write() as transaction:
            found = transaction.one(sql, **values)
            return transaction.one(f"{SELECT} where task.id = :id", id=found["id"]) if found else None

    def _find_all(self, sql: str, asked: Iterable[Values]) -> list[TaskRecord | None]:
        found = self._database.ask_together([Statement(sql, values) for values in asked])
        return [self._read(rows[0]) if rows else None for rows in found]

    def _one(self, sql: str, **values: Any) -> TaskRecord | None:
        found = self._all(sql, **values)
        return found[0] if found else None

    def _all(self, sql: str, **values: Any) -> list[TaskRecord]:
        read = (self._read(row) for row in self._database.ask(sql, **values))
        return [job for job in read if job is not None]

    def _read(self, row: Row) -> TaskRecord | None:
        """Read a task; one that cannot be read is named in the log, and put aside where no other release needs it."""
        try:
            return rows.from_row(row)
        except UNREADABLE as error:
            self._store.put_aside(row, f"{type(error).__name__}: {error}")
            return None


def input_file(identity: str, name: str) -> str:
    """Name the file of one image that came with a task."""
    return f"inputs/{identity}.{name}"


def input_files(job: TaskRecord) -> list[str]:
    """Name the files of all images that came with a task."""
    return [input_file(job.task.id, name) for name in job.inputs]


def image_file(job: TaskRecord) -> str:
    """Name the file of a task's image; each worker that takes the task up writes a file of its own."""
    return _image_file(job.folder, job.fence, job.order.output_format)


def _image_file(folder: str, fence: int, suffix: str) -> str:
    return f"images/{folder[:2]}/{folder}.{fence}.{suffix}"


def _files_of(row: Row) -> list[str]:
    """Name every file that a task may have, also the images of workers that ended before they could name them."""
    written = [_image_file(row["folder"], fence, kind) for fence in range(1, row["fence"]) for kind in SUFFIX.values()]
    return [*_read_inputs(row["id"], row["inputs"]), *written, *([row["image"]] if row["image"] else ())]


def _read_inputs(identity: str, inputs: Json) -> list[str]:
    try:
        return [input_file(identity, name) for name in json.loads(inputs)]
    except ValueError:
        return []
