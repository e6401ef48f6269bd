"""The server's accounts as the judge over a ledger: what was charged, what was bought twice, what was lost."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

from fluxwerk import imagefile
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.state.task import TaskRecord as Accepted


def bought(accepted: list[Accepted]) -> Counter[str]:
    """How many tasks the server accepted for each prompt."""
    return Counter(job.order.prompt for job in accepted)


def charged(accepted: list[Accepted]) -> Decimal:
    """What the server took for all of them, in credits."""
    return sum((job.task.cost or Decimal(0) for job in accepted), Decimal(0))


def prompts(ledger: Ledger, *stages: Stage) -> set[str]:
    """The prompts of the jobs in these stages."""
    return {Ledger.job_fields(row)["prompt"] for row in ledger.rows(*stages)}


def judge(ledger: Ledger, accepted: list[Accepted]) -> None:
    """Nothing was bought twice, nothing is missing, and the ledger's sums are never below the bill."""
    twice = {prompt: times for prompt, times in bought(accepted).items() if times > 1}
    assert twice == {}, "bought twice"
    known = prompts(ledger, Stage.SAVED, Stage.FAILED, Stage.DOUBTFUL)
    assert set(bought(accepted)) <= known, "bought, and not known to be"
    assert ledger.budget.sums().committed >= charged(accepted)
    assert_files(ledger)
    assert_sums(ledger)


def settle_by_the_accounts(ledger: Ledger, accepted: list[Accepted]) -> int:
    """Settle every doubt truthfully, as a person would who looks at the account; returns how many there were."""
    tasks = {job.order.prompt: job.task.id for job in accepted}
    doubts = list(ledger.rows(Stage.DOUBTFUL))
    for row in doubts:
        task = tasks.get(Ledger.job_fields(row)["prompt"])
        if task:
            ledger.settle_collect(row["id"], task)
        else:
            ledger.settle_resubmit(row["id"])
    return len(doubts)


def assert_files(ledger: Ledger) -> None:
    """Every saved job has its whole image."""
    paths = [Path(row["path"]) for row in ledger.rows(Stage.SAVED)]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if imagefile.fault(path.read_bytes())] == []


def assert_sums(ledger: Ledger) -> None:
    """The sums that are kept are those that counting gives."""
    count = """
        select stage, count(*) as jobs, sum(coalesce(settled, cost, estimate, 0)) as booked, sum(earlier) as earlier
        from jobs where sheet in (select id from sheets where opened is not null) group by stage order by stage
    """
    kept = """
        select stage, sum(jobs) as jobs, sum(booked) as booked, sum(earlier) as earlier from tally
        group by stage having sum(jobs) <> 0 or sum(booked) <> 0 or sum(earlier) <> 0 order by stage
    """
    with ledger.database.read() as transaction:
        assert [tuple(row) for row in transaction.all(kept)] == [tuple(row) for row in transaction.all(count)]
