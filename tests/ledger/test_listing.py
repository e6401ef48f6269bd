"""Jobs are found by their tag once their plan is open, and images are listed newest first."""

from __future__ import annotations

import pytest

from fluxwerk.batch import plan
from fluxwerk.errors import InvalidUsageError
from fluxwerk.ledger import listing
from fluxwerk.ledger.job import Stage, read_job
from fluxwerk.ledger.ledger import Ledger

ROW = {"prompt": "a fox", "width": 64, "height": 64}


def test_a_plan_that_its_check_refuses_leaves_no_job():
    def refuse(_):
        raise InvalidUsageError("no")

    with Ledger.open(":memory:") as ledger:
        with pytest.raises(InvalidUsageError):
            plan(ledger, [{**ROW, "tag": "a"}], check=refuse)
        assert listing.tagged(ledger.database, "a") == []
        plan(ledger, [{**ROW, "tag": "a", "count": 2}])
        assert len(listing.tagged(ledger.database, "a")) == 2


def test_a_planned_job_that_is_given_up_costs_nothing_and_is_no_image():
    with Ledger.open(":memory:") as ledger:
        plan(ledger, [{**ROW, "tag": "a"}])
        (row,) = listing.tagged(ledger.database, "a")
        ledger.refused(read_job(row), InvalidUsageError("given up"))
        assert ledger.job(row["id"]).stage is Stage.FAILED
        assert ledger.budget.sums().committed == 0
        assert listing.latest(ledger.database, 10) == []
