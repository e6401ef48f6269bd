"""The balance as a witness: quiet moments in which nobody submits, and what two balances say about jobs in doubt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from fluxwerk.errors import ConflictError
from fluxwerk.ledger.budget import SET_SETTING, committed
from fluxwerk.ledger.database import Database, Row, Transaction
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.job import IN_FLIGHT, Job, Stage, to_micro
from fluxwerk.ledger.transition import BOOKED, CLEARED, apply_transition
from fluxwerk.protocol import witness
from fluxwerk.protocol.witness import Doubt, Explanation, Verdict

QUIET = "quiet"
ACCOUNT = "account"
LATEST_QUIET = "select * from readings where quiet = 1 order by at desc limit 1"
# A submit that began before a balance was read has left its mark on that balance already.
IN_PLAY = f"select *, {BOOKED} as booked from jobs where stage = :doubtful and began >= :since order by id"  # noqa: S608  (no value from outside)
# Of these the ledger holds an estimate, or a cost that the service may have given back.
COST_UNKNOWN = """
    select count(*) as jobs from jobs where began > :since and stage in (:ready, :saved, :failed)
    and settled is null and (cost is null or stage = :failed)
"""
PRICED_WRONGLY = """
    select distinct model from jobs where estimate is not null and cost is not null and cost <> estimate
"""
INSERT_READING = """
    insert into readings (at, balance, spent, known, quiet) values (:at, :balance, :spent, :known, :quiet)
"""
INSERT_SETTLEMENT = """
    insert into settlements (at, since, difference, jobs, verdict, text, open)
    values (:at, :since, :difference, :jobs, :verdict, :text, :open)
"""
OPEN = "select * from settlements where open <> '[]' order by id"
SET_OPEN = "update settlements set open = :open, difference = :difference where id = :id"
DOUBTFUL_JOB = f"select *, {BOOKED} as booked from jobs where id = :id and stage = :doubtful"  # noqa: S608  (as above)
CHARGED = "settled by the balance: it was charged, and its image is lost"
NOT_CHARGED = "settled by the balance: it was not charged"


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a balance did to the jobs in doubt, by their numbers.

    `lost` were charged and their images are lost, `again` were not charged and are planned again, and `rebought` are
    planned again although some of them were charged: at most `rebuys`.
    """

    explanation: Explanation
    lost: tuple[int, ...] = ()
    again: tuple[int, ...] = ()
    rebought: tuple[int, ...] = ()
    rebuys: int = 0

    @property
    def is_open(self) -> bool:
        """Whether a person or an allowance may still decide it."""
        return self.explanation.verdict is Verdict.AMBIGUOUS and not self.rebought

    def charges(self, rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
        """Share the difference among the jobs that were charged; which of several, only their sum is known."""
        left = self.explanation.difference
        for row in rows:
            if row["id"] not in self.again:
                charged = min(row["booked"], left)
                left -= charged
                yield row, charged


class Doubts:
    """The evidence about the jobs in doubt of one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, worker: str, seconds: float) -> bool:
        """Let no process submit for so many seconds; false if another worker has asked for that."""
        with self._database.write() as transaction:
            holder, until = _holder(transaction)
            now = transaction.now()
            if holder not in (None, worker) and until > now:
                return False
            transaction.run(SET_SETTING, name=QUIET, value=f"{now + seconds} {worker}")
        return True

    def release(self, worker: str) -> None:
        """Let every process submit again, if this worker held them."""
        with self._database.write() as transaction:
            if _holder(transaction)[0] == worker:
                transaction.run("delete from settings where name = :name", name=QUIET)

    def use_account(self, account: str) -> None:
        """Note whose balance is read from now on; what was read of another account is no evidence."""
        with self._database.write() as transaction:
            row = transaction.one("select value from settings where name = :name", name=ACCOUNT)
            if row is None or row["value"] != account:
                transaction.run("update readings set quiet = 0")
                transaction.run(SET_SETTING, name=ACCOUNT, value=account)

    def is_quiet(self) -> bool:
        """Whether no submit is under way and no task in flight, over all processes."""
        with self._database.read() as transaction:
            return _is_quiet(transaction)

    def in_play(self) -> dict[int, float]:
        """Return the age in seconds of each doubt that a balance may settle, by the number of its job."""
        with self._database.read() as transaction:
            baseline = transaction.one(LATEST_QUIET)
            rows = _in_play(transaction, baseline["at"]) if baseline else []
            return {row["id"]: transaction.now() - row["moved"] for row in rows}

    def weigh(self, worker: str, balance: Decimal, rebuys: int = 0) -> list[Settlement]:
        """Compare a balance, read while this worker held all submits, with the last such one, and settle what it can.

        What earlier balances left open is tried again first.  At most `rebuys` images that were charged are planned
        again.  Raises `ConflictError` if others submit.
        """
        with self._database.write() as transaction:
            holder, until = _holder(transaction)
            if holder != worker or until < transaction.now() or not _is_quiet(transaction):
                raise ConflictError("Another process submits, so this balance says nothing; read it again.")
            settlements = _settle_open(transaction, rebuys)
            left = rebuys - sum(settlement.rebuys for settlement in settlements)
            baseline = transaction.one(LATEST_QUIET)
            rows = _in_play(transaction, baseline["at"]) if baseline else []
            if baseline and rows:
                settlements.append(_settle(transaction, baseline, rows, balance, left))
            transaction.run(
                INSERT_READING,
                at=transaction.now(), balance=to_micro(balance), spent=committed(transaction),
                known=_known(transaction), quiet=1,
            )  # fmt: skip
        return settlements

    def evidence(self, job: int) -> list[Row]:
        """List what balances have said about a job, oldest first."""
        with self._database.read() as transaction:
            rows = transaction.all("select * from settlements order by id")
        return [row for row in rows if job in json.loads(row["jobs"])]


def is_held(transaction: Transaction) -> bool:
    """Whether a worker wants no submits now."""
    return _holder(transaction)[1] > transaction.now()


def decided(transaction: Transaction, job: Row | Job, charged: int | None) -> None:
    """Take a job out of the arithmetic: something else than a balance has decided what became of it.

    `charged` is what it has cost, `None` if that is known only when its task ends: then no later balance may be
    compared with those that were read while it was in doubt, and what was open with it stays to a person.
    """
    identity, began = (job.id, job.began) if isinstance(job, Job) else (job["id"], job["began"])
    for row in transaction.all(OPEN):
        numbers: list[int] = json.loads(row["open"])
        if identity in numbers:
            rest = [] if charged is None else [number for number in numbers if number != identity]
            difference = row["difference"] - (charged or 0)
            transaction.run(SET_OPEN, id=row["id"], open=json.dumps(rest), difference=difference)
    if charged is None:
        transaction.run("update readings set quiet = 0 where at > :began", began=began or 0.0)
    else:
        _note_known(transaction, began, charged)


def _note_known(transaction: Transaction, began: float | None, charged: int) -> None:
    """Add what a doubt has cost to what was known when balances were read after it: these were lower by it already."""
    change = "update readings set known = known + :charged where quiet = 1 and at > :began"
    transaction.run(change, charged=charged, began=began or 0.0)


def _holder(transaction: Transaction) -> tuple[str | None, float]:
    row = transaction.one("select value from settings where name = :name", name=QUIET)
    if row is None:
        return None, 0.0
    until, _, worker = row["value"].partition(" ")
    return worker, float(until)


def _is_quiet(transaction: Transaction) -> bool:
    ask = "select coalesce(sum(jobs), 0) as jobs from tally where stage in (:submitting, :submitted)"
    row = transaction.one(ask, submitting=IN_FLIGHT[0], submitted=IN_FLIGHT[1])
    return row is None or not row["jobs"]


def _in_play(transaction: Transaction, since: float) -> list[Row]:
    return transaction.all(IN_PLAY, doubtful=Stage.DOUBTFUL, since=since)


def _known(transaction: Transaction) -> int:
    """Add up what was charged for certain."""
    ask = "select coalesce(sum(booked), 0) as booked from tally where stage = :doubtful"
    row = transaction.one(ask, doubtful=Stage.DOUBTFUL)
    return committed(transaction) - (row["booked"] if row else 0)


def _settle(transaction: Transaction, baseline: Row, rows: list[Row], balance: Decimal, rebuys: int) -> Settlement:
    difference = baseline["balance"] - (to_micro(balance) or 0) - (_known(transaction) - baseline["known"])
    since, open_ = baseline["at"], list[int]()
    unknown = transaction.one(COST_UNKNOWN, since=since, ready=Stage.READY, saved=Stage.SAVED, failed=Stage.FAILED)
    if unknown and unknown["jobs"]:
        text = f"The final cost of {unknown['jobs']} other tasks is not known, so that the balance proves nothing."
        settlement = Settlement(Explanation(Verdict.AMBIGUOUS, difference, text=text))
    else:
        settlement = _act(transaction, rows, _judge(transaction, rows, difference), rebuys)
        if settlement.is_open:
            open_ = [row["id"] for row in rows]
    said = settlement.explanation
    transaction.run(
        INSERT_SETTLEMENT,
        at=transaction.now(), since=since, difference=difference, jobs=json.dumps([row["id"] for row in rows]),
        verdict=said.verdict, text=said.text, open=json.dumps(open_),
    )  # fmt: skip
    return settlement


def _settle_open(transaction: Transaction, rebuys: int) -> list[Settlement]:
    """Try again what earlier balances left open, since a person or an allowance may have come."""
    settlements: list[Settlement] = []
    for equation in transaction.all(OPEN):
        numbers: list[int] = json.loads(equation["open"])
        found = [transaction.one(DOUBTFUL_JOB, id=number, doubtful=Stage.DOUBTFUL) for number in numbers]
        rows = [row for row in found if row]
        settlement = _act(transaction, rows, _judge(transaction, rows, equation["difference"]), rebuys)
        if settlement.is_open:
            continue
        rebuys -= settlement.rebuys
        settlements.append(settlement)
        transaction.run(SET_OPEN, id=equation["id"], open="[]", difference=equation["difference"])
        for row, charged in settlement.charges(rows):
            _note_known(transaction, row["began"], charged)
    return settlements


def _judge(transaction: Transaction, rows: list[Row], difference: int) -> Explanation:
    wrong = {row["model"] for row in transaction.all(PRICED_WRONGLY)}
    return witness.judge(difference, [Doubt(row["id"], row["estimate"], row["model"] not in wrong) for row in rows])


def _act(transaction: Transaction, rows: list[Row], explanation: Explanation, rebuys: int) -> Settlement:
    if explanation.verdict is not Verdict.SETTLED:
        most = explanation.most_charged
        if most is None or most > rebuys:
            return Settlement(explanation)
        # Buying all of them anew pays at most `most` images twice, knowingly.
        settlement = Settlement(explanation, rebought=tuple(row["id"] for row in rows), rebuys=most)
        note = f"bought anew, although {most} of them may be charged: {explanation.text}"
        for row, charged in settlement.charges(rows):
            _plan_again(transaction, row, charged, note)
        return settlement
    by_number = {row["id"]: row for row in rows}
    for number in explanation.not_charged:
        _plan_again(transaction, by_number[number], 0, f"{NOT_CHARGED}. {explanation.text}")
    anew, lost = explanation.charged[:rebuys], explanation.charged[rebuys:]
    for number in anew:
        row = by_number[number]
        _plan_again(transaction, row, row["booked"], f"{CHARGED}, and it is bought anew. {explanation.text}")
    for number in lost:
        note = f"{CHARGED}. {explanation.text}"
        apply_transition(
            transaction, number, Stage.DOUBTFUL, Stage.FAILED,
            note=note, kind=FailureKind.IN_DOUBT, reason=CHARGED, settled=by_number[number]["booked"],
        )  # fmt: skip
    return Settlement(explanation, lost, explanation.not_charged, anew, len(anew))


def _plan_again(transaction: Transaction, row: Row, charged: int, note: str) -> None:
    earlier = row["earlier"] + charged
    apply_transition(transaction, row["id"], Stage.DOUBTFUL, Stage.PLANNED, note=note, earlier=earlier, **CLEARED)
