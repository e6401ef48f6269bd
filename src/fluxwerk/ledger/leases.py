"""Who is at work and how many tasks may be in flight: leases of processes, and slots that belong to remote tasks.

A slot is held by a job, not by a process: the tasks of a dead process go on at the service and still count.
"""

from __future__ import annotations

import os
import secrets
import socket

from fluxwerk.ledger.database import Database, Transaction
from fluxwerk.ledger.job import IN_FLIGHT, Stage
from fluxwerk.ledger.transition import apply_transition

# A lease is renewed three times in its life, so one heartbeat may be lost.
LEASE_SECONDS = 6.0
DOUBT_HOLD_SECONDS = 60.0
BUSY_SLOTS = """
    select pool, sum(jobs) as busy from tally where stage in (:submitting, :submitted) group by pool
"""
# A moment that is still to come was written before the clock was set back, and says nothing.
BUSY_WITH_DOUBTS = """
    select pool, count(*) as busy from jobs where stage = :doubtful and moved > :since and moved <= :now group by pool
"""
# A clock that was set back would let a dead process live for as long as it was set back.
SHORTEN_LEASES = "update workers set expires = :now + lease where expires > :now + lease"
RELEASE_JOBS = """
    update jobs set worker = null, fence = fence + 1
    where stage in (:submitted, :ready) and worker = :worker
"""


class Leases:
    """The processes at work on one ledger, and the slots they share.

    A task in doubt may be running: it holds its slot for `doubt_holds` seconds, as long as such a task usually takes.
    """

    def __init__(self, database: Database, doubt_holds: float = DOUBT_HOLD_SECONDS) -> None:
        self._database = database
        self.doubt_holds = doubt_holds

    def register(self, lease: float = LEASE_SECONDS) -> str:
        """Begin a lease of `lease` seconds and return the name of the new worker."""
        worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        with self._database.write() as transaction:
            now = transaction.now()
            transaction.run(
                "insert into workers (id, started, lease, expires) values (:id, :now, :lease, :expires)",
                id=worker,
                now=now,
                lease=lease,
                expires=now + lease,
            )
        return worker

    def renew(self, worker: str) -> bool:
        """Renew a lease; false if it had run out, and other workers may have its jobs."""
        with self._database.write() as transaction:
            renew = "update workers set expires = :now + lease where id = :id"
            return transaction.run(renew, now=transaction.now(), id=worker) == 1

    def expire_dead(self) -> list[str]:
        """End every worker whose lease has run out and return their names; other workers may adopt their jobs."""
        with self._database.write() as transaction:
            now = transaction.now()
            transaction.run(SHORTEN_LEASES, now=now)
            dead = [row["id"] for row in transaction.all("select id from workers where expires < :now", now=now)]
            for worker in dead:
                end_worker(transaction, worker, "its process died while the submit was under way")
        return dead

    def unregister(self, worker: str) -> None:
        """End a lease in good order; a submit that is still under way becomes doubtful."""
        with self._database.write() as transaction:
            end_worker(transaction, worker, "the run was stopped while the submit was under way")

    def free(self, transaction: Transaction) -> dict[str, int]:
        """Count the free slots of each pool over all processes."""
        busy: dict[str, int] = {}
        counts = transaction.all(BUSY_SLOTS, submitting=IN_FLIGHT[0], submitted=IN_FLIGHT[1])
        now = transaction.now()
        counts += transaction.all(BUSY_WITH_DOUBTS, doubtful=Stage.DOUBTFUL, since=now - self.doubt_holds, now=now)
        for row in counts:
            busy[row["pool"]] = busy.get(row["pool"], 0) + row["busy"]
        pools = transaction.all("select name, slots from pools")
        return {row["name"]: max(0, row["slots"] - busy.get(row["name"], 0)) for row in pools}


def end_worker(transaction: Transaction, worker: str, reason: str) -> None:
    """End a worker: whether its submits arrived is unknown, and all its other jobs can go on."""
    under_way = transaction.all(
        "select id, fence from jobs where stage = :stage and worker = :worker", stage=Stage.SUBMITTING, worker=worker
    )
    for row in under_way:
        doubt(transaction, row["id"], row["fence"], reason)
    transaction.run(RELEASE_JOBS, submitted=Stage.SUBMITTED, ready=Stage.READY, worker=worker)
    transaction.run("delete from workers where id = :id", id=worker)


def doubt(transaction: Transaction, identity: int, fence: int, reason: str) -> None:
    """Move a job from submitting to in doubt: it may have been charged, and only a person or a webhook knows."""
    apply_transition(
        transaction, identity, Stage.SUBMITTING, Stage.DOUBTFUL, fence=fence, note=reason, worker=None, reason=reason
    )
