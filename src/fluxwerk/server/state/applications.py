"""The applications of a state and their keys: every process of the state sees a change at once.

A key is shown once and kept as SHA-256.  What is revoked keeps its row, so that what it spent keeps its name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.database import Row, Statement, Transaction
from fluxwerk.server.state.account import Standing
from fluxwerk.server.state.application import PERIODS, Application, NewKey, check_name, first_day
from fluxwerk.server.state.dialect import StateDatabase
from fluxwerk.server.state.rows import MILLION, NEVER, credits_of, millionths

IDENTITY_BYTES = 12


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key of an application: how a person tells it from others, and when it ends."""

    shown: str
    created: float
    ends: float | None


@dataclass(frozen=True, slots=True)
class ApplicationEntry:
    """An application with its keys, and what it has spent in all."""

    application: Application
    created: float
    revoked: float | None
    spent: Decimal
    keys: tuple[KeyRow, ...]


@dataclass(frozen=True, slots=True)
class DailySpend:
    """What one account spent on one model on one day in UTC."""

    day: str
    name: str
    model: str
    tasks: int
    credits: Decimal


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whom a key belongs to: an application, or an account of its own, and how that stands.

    It has `spent` so many credits in the present period.  `known_only` says that there are applications, so that a key
    has to be known.
    """

    application: Application | None
    spent: Decimal
    known_only: bool
    standing: Standing


class Applications:
    """Adds, finds and revokes the applications in a database."""

    def __init__(
        self,
        database: StateDatabase,
        clock: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    def add(self, wanted: Application, key: NewKey) -> None:
        """Add an application with its first key; raises `InvalidUsageError`."""
        check_name(wanted.name)
        application = replace(wanted, account=f"app-{self._entropy(IDENTITY_BYTES).hex()}")
        with self._database.write() as transaction:
            if transaction.one(FIND_NAME, name=wanted.name):
                raise InvalidUsageError(
                    "", faults=[Fault("name", wanted.name, "is taken", "revoke it first, or choose another name")]
                )
            transaction.run(ADD, created=self._clock(), **_columns(application))
            self._add_key(transaction, application.account, key)

    def change(self, name: str, **columns: Any) -> Application:
        """Change what an application may use, by the names of `Application`'s fields."""
        with self._database.write() as transaction:
            changed = replace(_read(_found(transaction, name)), **columns)
            transaction.run(CHANGE, **_columns(changed))
        return changed

    def rotate(self, name: str, key: NewKey, overlap: float) -> None:
        """Give an application another key, and let those that it has end after `overlap` seconds."""
        now = self._clock()
        with self._database.write() as transaction:
            row = _found(transaction, name)
            transaction.run(END_KEYS, account=row["account"], ends=now + overlap)
            self._add_key(transaction, row["account"], key)

    def revoke(self, name: str) -> None:
        """Let every key of an application end now; its tasks go on, and its name is free again."""
        now = self._clock()
        with self._database.write() as transaction:
            row = _found(transaction, name)
            transaction.run(
                "update application set revoked = :now where account = :account", now=now, account=row["account"]
            )
            transaction.run(END_KEYS, account=row["account"], ends=now)

    def find(self, digest: str, now: float) -> Application | None:
        """Find the application that the key with this SHA-256 opens at a moment."""
        found = self._database.ask(FIND_KEY, digest=digest, now=now)
        return _read(found[0]) if found else None

    def holders(self, asked: Sequence[tuple[str, float, str]]) -> list[KeyHolder]:
        """Find out whom the keys with these SHA-256s belong to, each at a moment, and how that stands in a pool."""
        # An application polls many tasks at once, and stands the same way for all of them.
        moments = {(digest, pool): now for digest, now, pool in asked}
        statements = [
            Statement(HOLDER, {"digest": digest, "now": now, "pool": pool, **_first_days(now)})
            for (digest, pool), now in moments.items()
        ]
        rows = self._database.ask_together(statements)
        found = {wanted: _holder(row, wanted[1]) for wanted, (row,) in zip(moments, rows, strict=True)}
        return [found[digest, pool] for digest, _, pool in asked]

    def standing(self, account: str, now: float, pool: str) -> Standing:
        """Say how an account stands in a pool."""
        (row,) = self._database.ask(STANDING, account=account, now=now, pool=pool)
        return _standing(row, pool)

    def exist(self) -> bool:
        """Whether there is an application, revoked ones too: from then on a key has to be known."""
        return bool(self._database.ask("select 1 as found from application limit 1"))

    def entries(self) -> list[ApplicationEntry]:
        """List every application in the order of their addition, revoked ones too."""
        with self._database.read() as transaction:
            rows = transaction.all(LIST)
            found = transaction.all("select * from api_key order by created")
        own: dict[str, list[KeyRow]] = {row["account"]: [] for row in rows}
        for key in found:
            own[key["account"]].append(KeyRow(key["shown"], key["created"], key["ends"]))
        return [
            ApplicationEntry(
                _read(row), row["created"], row["revoked"], Decimal(row["spent"]) / MILLION, tuple(own[row["account"]])
            )
            for row in rows
        ]

    def spend(self, since: str = "", until: str = "9999", names: Mapping[str, str] | None = None) -> list[DailySpend]:
        """List what was spent by day, account and model, from one day in UTC to another.

        `names` are those of keys that belong to no application, by their SHA-256.
        """
        rows = [_daily(row, names) for row in self._database.ask(SPEND, since=since, until=until)]
        return sorted(rows, key=lambda row: (row.day, row.name, row.model))

    def newest_spend(self, most: int) -> list[DailySpend]:
        """List at most so many of the newest rows of what was spent, the last day first."""
        ask = f"{SPEND} order by day desc, name, model limit :most"
        return [_daily(row) for row in self._database.ask(ask, since="", until="9999", most=most)]

    def _add_key(self, transaction: Transaction, account: str, key: NewKey) -> None:
        transaction.run(ADD_KEY, digest=key.digest, account=account, shown=key.shown, created=self._clock())


def _found(transaction: Transaction, name: str) -> Row:
    found = transaction.one(FIND_NAME, name=name)
    if found is None:
        raise InvalidUsageError(
            "", faults=[Fault("name", name, "is not an open application", "`fluxwerk keys list` shows them")]
        )
    return found


def _daily(row: Row, names: Mapping[str, str] | None = None) -> DailySpend:
    account = row["account"]
    name = names[account] if names and account in names else row["name"]
    return DailySpend(row["day"], name, row["model"], row["tasks"], Decimal(row["credits"]) / MILLION)


def _columns(application: Application) -> dict[str, Any]:
    return {
        "account": application.account,
        "name": application.name,
        "budget": millionths(application.budget),
        "period": application.period,
        "slots": application.slots,
        "models": None if application.models is None else json.dumps(sorted(application.models)),
        "priority": application.priority,
        "rate": application.rate,
        "largest_body": application.largest_body,
        "keep": application.keep,
    }


def _first_days(now: float) -> dict[str, str]:
    """Name the first day of each period that ends, as `HOLDER` compares it."""
    return {period: first_day(period, now) for period in PERIODS if period != "total"}


def _holder(row: Row, pool: str) -> KeyHolder:
    application = None if row["account"] is None else _read(row)
    return KeyHolder(
        application, credits_of(row["present"]) or Decimal(0), bool(row["known_only"]), _standing(row, pool)
    )


def _standing(row: Row, pool: str) -> Standing:
    return Standing(pool, row["busy"], row["waiting"], row["reached"], row["free"] or NEVER)


def _read(row: Mapping[str, Any]) -> Application:
    return Application(
        row["name"],
        row["account"],
        credits_of(row["budget"]) or Decimal(0),
        row["period"],
        row["slots"],
        None if row["models"] is None else frozenset(json.loads(row["models"])),
        row["priority"],
        row["rate"],
        row["largest_body"],
        row["keep"],
    )


ADD = """
    insert into application
        (account, name, budget, period, slots, models, priority, rate, largest_body, keep, created)
    values (:account, :name, :budget, :period, :slots, :models, :priority, :rate, :largest_body, :keep, :created)
"""
CHANGE = """
    update application set name = :name, budget = :budget, period = :period, slots = :slots, models = :models,
        priority = :priority, rate = :rate, largest_body = :largest_body, keep = :keep
    where account = :account
"""
ADD_KEY = "insert into api_key (digest, account, shown, created) values (:digest, :account, :shown, :created)"
END_KEYS = "update api_key set ends = :ends where account = :account and (ends is null or ends > :ends)"
FIND_NAME = "select * from application where name = :name and revoked is null"
FIND_KEY = """
    select application.* from api_key join application on application.account = api_key.account
    where digest = :digest and (ends is null or ends > :now) and revoked is null
"""
STANDING_COLUMNS = """
    coalesce(account.spent, 0) as spent, coalesce(account.waiting, 0) as waiting,
    coalesce(account.reached, 0) as reached, (
        select count(*) from task
        where task.account = asked.id and pool = :pool and holds_until > :now and forget_at > :now
    ) as busy, (
        select min(holds_until) from task
        where task.account = asked.id and pool = :pool and holds_until > :now and forget_at > :now
    ) as free
"""
STANDING = f"""
    select {STANDING_COLUMNS}
    from (select cast(:account as text) as id) as asked left join account on account.id = asked.id
"""
HOLDER = f"""
    select application.*, (select 1 from application limit 1) as known_only, {STANDING_COLUMNS},
        case when coalesce(application.period, 'total') = 'total' then coalesce(account.spent, 0) else (
            select cast(coalesce(sum(credits), 0) as bigint) from spend where spend.account = asked.id
            and day >= case application.period when 'day' then :day when 'week' then :week else :month end
        ) end as present
    from (
        select coalesce((
            select application.account from api_key join application on application.account = api_key.account
            where digest = :digest and (ends is null or ends > :now) and revoked is null
        ), :digest) as id
    ) as asked
    left join application on application.account = asked.id
    left join account on account.id = asked.id
"""
LIST = """
    select application.*, coalesce(account.spent, 0) as spent
    from application left join account on account.id = application.account order by created, name
"""
SPEND = """
    select day, spend.account, coalesce(application.name, 'sha256:' || substr(spend.account, 1, 8)) as name, model,
        tasks, credits
    from spend left join application on application.account = spend.account
    where day >= :since and day <= :until
"""
