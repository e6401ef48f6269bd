"""What accounts spend: booked with a task, settled when it ends, summed by day and model for reports and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from fluxwerk.ledger.database import Database, Row, Statement, Transaction
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.application import Period, day_of, first_day, throttle
from fluxwerk.server.state.rows import credits_of


class CreditsSpentError(Exception):
    """The account has `left` credits, which are too few for the task."""

    def __init__(self, left: Decimal) -> None:
        super().__init__(f"{left} credits are left")
        self.left = left


class SubmitRateError(Exception):
    """The account submits too often; after `wait` seconds it may again."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"wait {wait} seconds")
        self.wait = wait


def book(transaction: Transaction, account: Account, model: str, cost: int, now: float) -> None:
    """Charge one task in millionths of a credit; raises `CreditsSpentError` and `SubmitRateError`.

    The account is locked until the transaction ends, so the sums hold, whoever else submits for it.
    """
    charged = transaction.together(statements(account, model, cost, now))
    judge(account, cost, charged)
    if account.rate is not None:
        reached, wait = throttle(charged[0][0]["reached"], now, account.rate)
        if wait:
            raise SubmitRateError(wait)
        transaction.run("update account set reached = :reached where id = :id", reached=reached, id=account.id)


def statements(account: Account, model: str, cost: int, now: float) -> list[Statement]:
    """Write what charges one task, and locks the account; `judge` reads the answers."""
    charge = _charge(account.id, model, now, cost, tasks=1)
    if account.period == "total":
        return charge
    return [*charge, Statement(SPENT_SINCE, {"account": account.id, "first": first_day(account.period, now)})]


def judge(account: Account, cost: int, charged: Sequence[Sequence[Row]]) -> None:
    """Raise `CreditsSpentError` if an account that was charged has spent more than it may."""
    # The last answer is that for the present period, where there is one.
    spent = charged[0][0]["spent"] if account.period == "total" else charged[-1][0]["spent"]
    left = account.granted - (credits_of(spent) or Decimal(0))
    if cost and left < 0:
        raise CreditsSpentError(left + (credits_of(cost) or 0))


def settle(transaction: Transaction, account: str, model: str, accepted: float, change: int) -> None:
    """Charge more or less for a task that was booked, on the day on which it was accepted."""
    transaction.together(_charge(account, model, accepted, change, tasks=0))


def spent_since(database: Database, account: str, period: Period, now: float) -> Decimal:
    """Say what an account has spent since the present period began."""
    found = database.ask(SPENT_SINCE, account=account, first=first_day(period, now))
    return credits_of(found[0]["spent"]) or Decimal(0)


def wait(account: Account, now: float) -> float:
    """Say for how many seconds an account's rate let it submit nothing, when it was read."""
    return 0.0 if account.rate is None else throttle(account.standing.reached, now, account.rate)[1]


def _charge(account: str, model: str, at: float, cost: int, tasks: int) -> list[Statement]:
    spent = {"account": account, "day": day_of(at), "model": model, "cost": cost, "tasks": tasks}
    return [Statement(CHARGE, {"account": account, "cost": cost}), Statement(SPEND_DAY, spent)]


CHARGE = """
    insert into account (id, spent) values (:account, :cost)
    on conflict (id) do update set spent = account.spent + excluded.spent returning spent, reached
"""
SPEND_DAY = """
    insert into spend (account, day, model, tasks, credits) values (:account, :day, :model, :tasks, :cost)
    on conflict (account, day, model) do update
    set tasks = spend.tasks + excluded.tasks, credits = spend.credits + excluded.credits
"""
SPENT_SINCE = """
    select cast(coalesce(sum(credits), 0) as bigint) as spent from spend where account = :account and day >= :first
"""
