"""Many processes over one PostgreSQL: their tasks are handed over by Procrastinate, whose jobs carry only an id.

The task's row is the truth.  A job of Procrastinate is the right to work on it for now; it is put into its table by the
transaction that accepts the task, so that neither is there without the other.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger.database import Row, Statement, Transaction, statements
from fluxwerk.ledger.postgresql import PACKAGES_OF_FLEET, PostgresDatabase
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.wakeups import FleetWakeup
from fluxwerk.storage import Storage

# The task of Procrastinate that renders; its queues are called like the models.
RENDER = "fluxwerk.render"
# Seconds without a sign of life after which a process counts as gone, and after which its row goes too.
SILENCE_SECONDS, REMEMBERED_SECONDS = 10.0, 3600.0
# Seconds for which a task may be without a job before it is handed over again: longer than any transaction lasts.
HANDED_OVER_SECONDS = 15.0
# How many open tasks are looked at in one search for such tasks: a longer queue is gone through in several.
SEARCHED = 20_000
# How long many tasks that are booked together wait for an account that another process has locked.
LOCK_MILLISECONDS = 100
# For how many seconds an answer to "who is alive" is good.
FRESH_SECONDS = 1.0
# Any number that no other program locks in the same database.
SCHEMA_LOCK, RECOVERY_LOCK = 0x666C7578, 0x666C7579

log = logging.getLogger("fluxwerk.server")


class FleetDatabase(PostgresDatabase):
    """PostgreSQL as a database of the state."""

    number = "bigint generated always as identity primary key"
    skip_locked = "for update skip locked"
    hurry: tuple[Statement, ...] = (Statement(f"set local lock_timeout = {LOCK_MILLISECONDS}"),)
    among = "= any(:ids)"
    # Commits with notices wait for each other, and each new job gives one: that is no reason to fail.
    calm: tuple[Statement, ...] = (Statement("set local lock_timeout to default"),)

    def script(self, sql: str) -> None:
        """Execute the statements of a migration, inside the transaction that is open."""
        with self.write() as transaction:
            for statement in statements(sql):
                transaction.run(statement)

    def tables(self) -> set[str]:
        """Name the tables that are there."""
        found = self.ask("select table_name from information_schema.tables where table_schema = current_schema()")
        return {row["table_name"] for row in found}

    def pack(self, texts: Sequence[str]) -> object:
        """Write texts as an array."""
        return list(texts)

    def lock_schema(self, transaction: Transaction) -> None:
        """Let no other process change the tables until the transaction ends."""
        transaction.run(f"select pg_advisory_xact_lock({SCHEMA_LOCK})")
        # Made once: the versions that pyproject.toml allows have the same tables.
        if "procrastinate_jobs" not in self.tables():
            transaction.run(_procrastinate_schema())


class FleetStore(Store):
    """The store that many processes share: rows in PostgreSQL, files in a folder or bucket that all of them reach.

    `searched` is how many open tasks one `recover` looks at.
    """

    embedded = False

    def __init__(self, database: FleetDatabase, files: Storage, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(database, files, entropy)
        self.url = database.url
        self.wakeup = FleetWakeup(database)
        self._served: tuple[float, Mapping[str, frozenset[str]]] = 0.0, {}
        self.searched, self._searched_to = SEARCHED, 0

    def close(self) -> None:
        """Let go of the database."""
        self.wakeup.close()
        super().close()

    def hand_over(self, transaction: Transaction, job: TaskRecord) -> int | None:
        """Put a job for a task into Procrastinate's table, and return its number."""
        return self._defer(transaction, job.task.id, job.order.model, job.priority)

    def handing_over(self, job: TaskRecord, priority: str) -> Statement:
        """Write an expression that does so in the statement that accepts the task."""
        return Statement(f"({DEFER.format(priority=priority)})", _deferred(job.task.id, job.order.model))

    def put_aside(self, row: Row, reason: str) -> None:
        """Name a row that cannot be read, and leave it: a process of another release may understand it."""
        log.error("task %s of the state cannot be read (%s); another release may have written it.", row["id"], reason)

    def beat(self, process: str, kind: str, engine: str | None, models: Iterable[str]) -> None:
        """Give a sign of life, with the models that this process renders."""
        with self.database.write() as transaction:
            now, text = transaction.now(), json.dumps(sorted(models))
            transaction.run(BEAT, id=process, kind=kind, engine=engine, models=text, now=now)

    def leave(self, process: str) -> None:
        """Say that this process is gone, and hand over what it had begun."""
        with self.database.write() as transaction:
            for row in transaction.all(RELEASE, worker=process):
                self._hand_over_again(transaction, row)
            transaction.run("delete from process where id = :id", id=process)
            transaction.run(RETURN_WEBHOOKS, gone=transaction.now() - SILENCE_SECONDS)

    def served(self) -> Mapping[str, frozenset[str]]:
        """Name the models that some live process renders, each with the engines that do, as of the last second."""
        read, found = self._served
        if time.monotonic() - read > FRESH_SECONDS:
            ask = "select engine, models from process where beat > extract(epoch from now()) - :silence"
            engines: defaultdict[str, set[str]] = defaultdict(set)
            for row in self.database.ask(ask, silence=SILENCE_SECONDS):
                for model in json.loads(row["models"]):
                    engines[model].add(row["engine"])
            found = {model: frozenset(names) for model, names in engines.items()}
            self._served = time.monotonic(), found
        return found

    def held(self, process: str) -> set[str]:
        """Name the tasks that this process still works on, as the rows say."""
        rows = self.database.ask("select id from task where worker = :worker and stage = 'running'", worker=process)
        return {row["id"] for row in rows}

    def recover(self) -> int:
        """Hand over again what nobody works on, and return how much that was; one process at a time does so.

        Procrastinate itself takes jobs over from workers that died.  This is for tasks whose job is gone, as after a
        late worker removed the one of its successor, and for webhooks of processes that died.  Each call looks at the
        next `searched` open tasks, so that it takes as long behind a million as behind a few.
        """
        with self.database.write() as transaction:
            lock = transaction.one(f"select pg_try_advisory_xact_lock({RECOVERY_LOCK}) as mine")
            if not lock or not lock["mine"]:
                return 0
            now = transaction.now()
            transaction.run("delete from process where beat < :old", old=now - REMEMBERED_SECONDS)
            transaction.run(RETURN_WEBHOOKS, gone=now - SILENCE_SECONDS)
            lost = self._search(transaction, before=now - HANDED_OVER_SECONDS)
            for row in lost:
                self._hand_over_again(transaction, row)
        if lost:
            log.warning("%d tasks had no job any more, and are handed over again.", len(lost))
        return len(lost)

    def _search(self, transaction: Transaction, before: float) -> list[Row]:
        """Return the tasks without a job among the open ones that come next; after the last come the first."""
        (found,) = transaction.all(NEXT_OPEN, after=self._searched_to, most=self.searched)
        after, self._searched_to = self._searched_to, found["last"] if found["count"] == self.searched else 0
        return transaction.all(LOST, after=after, last=found["last"], before=before)

    def _hand_over_again(self, transaction: Transaction, row: Row) -> None:
        number = self._defer(transaction, row["id"], row["model"], row["priority"])
        transaction.run("update task set job = :job where id = :id", job=number, id=row["id"])

    def _defer(self, transaction: Transaction, identity: str, queue: str, priority: int) -> int | None:
        found = transaction.one(DEFER.format(priority=":priority"), priority=priority, **_deferred(identity, queue))
        return int(found["job"]) if found else None


def _deferred(identity: str, queue: str) -> dict[str, str]:
    return {"queue": queue, "task": RENDER, "args": json.dumps({"identity": identity})}


def _procrastinate_schema() -> str:
    try:
        from procrastinate.schema import SchemaManager  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise InvalidUsageError(f"A fleet needs more packages: {PACKAGES_OF_FLEET}") from None
    return SchemaManager.get_schema()


BEAT = """
    insert into process (id, kind, engine, models, beat) values (:id, :kind, :engine, :models, :now)
    on conflict (id) do update set models = excluded.models, beat = excluded.beat
"""
RELEASE = """
    update task set stage = 'queued', worker = null, fence = fence + 1 where worker = :worker and stage = 'running'
    returning id, model, priority
"""
RETURN_WEBHOOKS = """
    update webhook set state = 'waiting', owner = null
    where state = 'pending' and owner not in (select id from process where beat > :gone)
"""
NEXT_OPEN = """
    select count(*) as count, max(number) as last from (
        select number from task where stage <> 'ended' and number > :after order by number limit :most
    ) as open
"""
LOST = """
    select id, model, priority from task
    where stage in ('queued', 'running') and number > :after and number <= :last and accepted < :before and not exists (
        select 1 from procrastinate_jobs where procrastinate_jobs.id = task.job and status in ('todo', 'doing')
    ) for update skip locked
"""
DEFER = """
    select (procrastinate_defer_jobs_v1(array[
        row(:queue, :task, cast({priority} as integer), null, null, cast(:args as jsonb), null)
    ]::procrastinate_job_to_defer_v1[]))[1] as job
"""
