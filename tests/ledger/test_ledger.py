from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from fluxwerk.batch import plan
from fluxwerk.errors import (
    AuthenticationError,
    ConflictError,
    InsufficientCreditsError,
    InvalidRequestError,
    InvalidUsageError,
    LinkExpiredError,
    ModerationError,
    RateLimitError,
    StorageError,
    TaskFailedError,
    TaskTimeoutError,
)
from fluxwerk.ledger import migrations
from fluxwerk.ledger.database import SQLiteDatabase, is_database
from fluxwerk.ledger.job import TRANSITIONS, Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.ledger.transition import apply_transition
from fluxwerk.testing import PretendClock
from support import judge
from support.jobs import BASE, ledger_with, status, task

SAVED = Saved("/images/1.png", "ab" * 32)


def submitting(ledger: Ledger, most: int = 1) -> tuple[str, list[Job]]:
    worker = ledger.leases.register()
    return worker, list(ledger.submitting(worker, most, BASE).jobs)


def submitted(ledger: Ledger) -> Job:
    _, [job] = submitting(ledger)
    accepted = ledger.submitted(job, task())
    assert accepted
    return accepted


def doubtful(ledger: Ledger) -> Job:
    _, [job] = submitting(ledger)
    ledger.doubted(job, "the answer was lost")
    return job


def failed(ledger: Ledger, error: Exception) -> Job:
    job = submitted(ledger)
    return ledger.failed(job, error)


def test_a_job_goes_from_planned_to_saved_and_its_story_tells_each_move():
    ledger = ledger_with(1)
    job = submitted(ledger)
    ready = ledger.ready(job, status(job))
    done = ledger.saved(ready, SAVED)

    assert done.stage is Stage.SAVED
    assert [(told["before"], told["after"]) for told in ledger.transitions(1)] == [
        ("planned", "submitting"),
        ("submitting", "submitted"),
        ("submitted", "ready"),
        ("ready", "saved"),
    ]
    judge.assert_sums(ledger)


def test_the_intent_is_written_before_the_submit():
    """The intent is written before the submit and the task right after it."""
    ledger = ledger_with(1)
    _, [job] = submitting(ledger)
    assert ledger.job(1).stage is Stage.SUBMITTING
    assert ledger.job(1).base == BASE

    ledger.submitted(job, task(cost="4.5"))

    kept = ledger.job(1)
    assert (kept.task, kept.cost) == (task(cost="4.5"), Decimal("4.5"))


def test_a_link_is_forgotten_once_its_image_is_saved():
    """A link is kept while it is needed and forgotten once the image is saved."""
    ledger = ledger_with(1)
    job = submitted(ledger)
    ready = ledger.ready(job, status(job))
    assert ledger.job(1).url == status(job).url
    ledger.saved(ready, SAVED)
    assert ledger.job(1).url is None
    assert "secret" not in repr(ready)


def test_a_link_dies_ten_minutes_after_it_was_named_unless_it_says_when():
    clock = PretendClock()
    ledger = ledger_with(2, clock)
    first = submitted(ledger)
    assert ledger.ready(first, status(first)).expires == clock.now() + 600
    second = submitted(ledger)
    assert ledger.ready(second, status(second), 17.0).expires == 17.0


def test_a_dead_link_sends_the_job_back_to_ask_its_task_again():
    ledger = ledger_with(1)
    job = submitted(ledger)
    back = ledger.expired(ledger.ready(job, status(job)))
    assert (back.stage, back.task, back.url) == (Stage.SUBMITTED, task(), None)


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in Stage for after in Stage if after not in TRANSITIONS[before]]
)
def test_a_move_that_is_not_in_the_table_is_not_made(before: Stage, after: Stage):
    ledger = ledger_with(1)
    with ledger.database.write() as transaction, pytest.raises(AssertionError, match="may not become"):
        apply_transition(transaction, 1, before, after)


def test_of_two_processes_one_wins():
    ledger = ledger_with(1)
    job = submitted(ledger)
    ledger.ready(job, status(job))
    with pytest.raises(ConflictError):
        ledger.ready(job, status(job))
    with pytest.raises(ConflictError):
        ledger.failed(job, TaskFailedError("late"))
    judge.assert_sums(ledger)


def test_a_worker_that_was_declared_dead_claims_nothing():
    clock = PretendClock()
    ledger = ledger_with(1, clock)
    worker = ledger.leases.register(lease=6.0)
    clock.sleep(7)
    assert ledger.leases.expire_dead() == [worker]
    with pytest.raises(ConflictError, match="ran out"):
        ledger.submitting(worker, 1, BASE)


def test_a_worker_that_was_declared_dead_takes_nothing_over_that_others_could_not():
    clock = PretendClock()
    ledger = ledger_with(2, clock)
    worker, [job] = submitting(ledger)
    ledger.submitted(job, task())
    submitting(ledger)
    clock.sleep(7)
    ledger.leases.expire_dead()

    assert ledger.adopt(worker, 5) == []
    assert ledger.repeating(worker, BASE, 3600.0) == []

    fresh = ledger.leases.register()
    assert [adopted.id for adopted in ledger.adopt(fresh, 5)] == [1]
    assert [repeated.id for repeated in ledger.repeating(fresh, BASE, 3600.0)] == [2]


def test_a_job_in_submitting_after_a_crash_is_in_doubt_and_spent():
    """A job found in submitting after a crash is in doubt and counts as spent."""
    clock = PretendClock()
    ledger = ledger_with(2, clock)
    submitting(ledger)
    clock.sleep(7)
    ledger.leases.expire_dead()

    assert ledger.job(1).stage is Stage.DOUBTFUL
    sums = ledger.budget.sums()
    assert (sums.doubtful, sums.committed, sums.planned) == (3, 3, 3)
    assert "died" in ledger.row(1)["reason"]


def test_an_answer_that_comes_after_the_takeover_still_finds_its_job():
    clock = PretendClock()
    ledger = ledger_with(1, clock)
    _, [job] = submitting(ledger)
    clock.sleep(7)
    ledger.leases.expire_dead()

    assert ledger.submitted(job, task()) is None

    assert (ledger.job(1).stage, ledger.job(1).task) == (Stage.SUBMITTED, task())
    assert ledger.adopt(ledger.leases.register(), 5) != []


def test_an_answer_to_a_job_that_was_settled_already_changes_nothing():
    ledger = ledger_with(1)
    job = doubtful(ledger)
    ledger.settle_charged(1)
    assert ledger.submitted(job, task()) is None
    assert ledger.job(1).stage is Stage.FAILED


def test_a_withdrawn_job_is_as_new_and_costs_nothing():
    ledger = ledger_with(1)
    _, [job] = submitting(ledger)
    back = ledger.withdrawn(job, "busy")
    assert (back.stage, back.token, back.base, back.attempt) == (Stage.PLANNED, None, None, 1)
    assert ledger.budget.sums().committed == 0
    judge.assert_sums(ledger)


def test_a_refused_job_has_failed_and_costs_nothing():
    ledger = ledger_with(1)
    _, [job] = submitting(ledger)
    assert ledger.refused(job, InvalidRequestError("width: too large")).cost == 0
    assert ledger.row(1)["kind"] == "rejected"
    assert ledger.budget.sums().spent == 0


def test_a_failed_task_costs_what_its_last_answer_said():
    """A task that failed costs what the last status said and else what the submit said."""
    ledger = ledger_with(2)
    free, paid = submitted(ledger), submitted(ledger)
    ledger.failed(free, ModerationError("no"), 0)
    ledger.failed(paid, TaskFailedError("no"))
    assert ledger.budget.sums().spent == 3
    judge.assert_sums(ledger)


@pytest.mark.parametrize(
    "error",
    [
        TaskTimeoutError("slow"),
        LinkExpiredError("dead"),
        RateLimitError("later"),
        AuthenticationError("key"),
        InsufficientCreditsError("empty"),
    ],
)
def test_retrying_a_task_with_an_image_pays_nothing(error: Exception):
    """Retrying what may still have an image asks its task and pays nothing."""
    ledger = ledger_with(1)
    failed(ledger, error)
    again = ledger.retry(1)
    assert (again.stage, again.task) == (Stage.SUBMITTED, task())
    assert ledger.budget.sums().committed == 3
    judge.assert_sums(ledger)


def test_retrying_a_failure_plans_a_new_submit():
    """Retrying any other failure plans a new submit and keeps what was spent."""
    ledger = ledger_with(1)
    failed(ledger, TaskFailedError("no"))
    again = ledger.retry(1)
    assert (again.stage, again.task, again.attempt) == (Stage.PLANNED, None, 1)
    sums = ledger.budget.sums()
    assert (sums.spent, sums.planned) == (3, 3)
    judge.assert_sums(ledger)


def test_only_a_failed_job_is_retried_and_only_a_doubtful_one_settled():
    ledger = ledger_with(1)
    with pytest.raises(ConflictError, match="Job 1 is planned, not failed"):
        ledger.retry(1)
    with pytest.raises(ConflictError, match="not in doubt"):
        ledger.settle_charged(1)
    with pytest.raises(InvalidUsageError, match="no job 9"):
        ledger.settle_resubmit(9)
    with pytest.raises(InvalidUsageError, match="no job 9"):
        ledger.job(9)


def test_a_doubt_is_settled_as_charged():
    ledger = ledger_with(1)
    doubtful(ledger)
    assert ledger.settle_charged(1).stage is Stage.FAILED
    assert (ledger.budget.sums().spent, ledger.budget.sums().doubtful) == (3, 0)
    judge.assert_sums(ledger)


def test_a_doubt_is_settled_as_not_charged_and_submitted_again():
    ledger = ledger_with(1)
    doubtful(ledger)
    assert ledger.settle_resubmit(1).stage is Stage.PLANNED
    assert ledger.budget.sums().committed == 0
    judge.assert_sums(ledger)


def test_a_doubt_is_settled_by_naming_its_task():
    ledger = ledger_with(1)
    doubtful(ledger)
    job = ledger.settle_collect(1, "task 1")
    assert job.stage is Stage.SUBMITTED
    assert job.task
    assert job.task.polling_url == f"{BASE}/v1/get_result?id=task%201"
    assert ledger.budget.sums().committed == 3


def test_a_task_belongs_to_one_job_alone():
    ledger = ledger_with(2)
    for job in ledger.submitting(ledger.leases.register(), 2, BASE).jobs:
        ledger.doubted(job, "lost")
    ledger.settle_collect(1, "task-1")
    with pytest.raises(InvalidUsageError, match="task-1 is the task of job 1 already"):
        ledger.settle_collect(2, "task-1")
    assert ledger.job(2).stage is Stage.DOUBTFUL


def test_a_webhook_that_knows_the_token_ends_the_doubt_and_may_come_twice():
    ledger = ledger_with(1)
    job = doubtful(ledger)
    assert job.token
    found = ledger.accept_callback(job.token, "task-9")
    assert found
    assert (found.id, found.stage) == (1, Stage.SUBMITTED)
    assert ledger.accept_callback(job.token, "task-9") is None
    assert ledger.accept_callback("a guess", "task-9") is None
    judge.assert_sums(ledger)


def test_a_webhook_may_come_before_the_answer_to_the_submit():
    ledger = ledger_with(1)
    _, [job] = submitting(ledger)
    assert job.token
    assert ledger.accept_callback(job.token, "task-1")
    assert ledger.submitted(job, task()) is None
    with pytest.raises(ConflictError):
        ledger.doubted(job, "the answer was lost")
    assert ledger.job(1).stage is Stage.SUBMITTED


def test_each_attempt_has_a_token_of_its_own_that_no_repr_shows():
    ledger = ledger_with(1)
    _, [first] = submitting(ledger)
    ledger.withdrawn(first, "busy")
    _, [second] = submitting(ledger)
    assert first.token != second.token
    assert len(first.token or "") >= 32
    assert str(first.token) not in repr(first)


def test_orphans_are_adopted_by_nearest_expiry_and_only_once():
    ledger = ledger_with(3)
    worker, jobs = submitting(ledger, 3)
    for number, job in enumerate(jobs):
        accepted = ledger.submitted(job, task(f"task-{number}"))
        assert accepted
        ledger.ready(accepted, status(accepted), expires=1000.0 - number)
    ledger.leases.unregister(worker)
    other = ledger.leases.register()

    assert [job.id for job in ledger.adopt(other, 2)] == [3, 2]
    assert [job.id for job in ledger.adopt(other, 2)] == [1]
    assert ledger.adopt(other, 2) == []


def test_what_an_offline_server_took_with_it_is_planned_again_for_nothing():
    ledger = ledger_with(3)
    worker, [first, second, third] = submitting(ledger, 3)
    ledger.submitted(first, task())
    accepted = ledger.submitted(second, task("task-2"))
    assert accepted
    ledger.ready(accepted, status(accepted))
    ledger.doubted(third, "lost")
    ledger.replan_offline(f"{BASE}/another")
    assert ledger.budget.sums().count(Stage.PLANNED) == 1
    ledger.leases.unregister(worker)

    ledger.replan_offline(f"{BASE}/another")

    sums = ledger.budget.sums()
    assert (sums.count(Stage.PLANNED), sums.committed) == (3, 0)
    judge.assert_sums(ledger)


def test_rows_come_a_chunk_at_a_time_in_the_order_of_their_numbers():
    ledger = ledger_with(5)
    submitting(ledger, 2)
    assert [row["id"] for row in ledger.rows(chunk=2)] == [1, 2, 3, 4, 5]
    assert [row["id"] for row in ledger.rows(Stage.PLANNED, chunk=3)] == [3, 4, 5]
    assert list(ledger.rows(Stage.SAVED)) == []


def test_what_was_agreed_on_is_remembered():
    ledger = ledger_with(0)
    assert ledger.setting("output") is None
    ledger.remember(output="a", name="b")
    ledger.remember(output="c")
    assert (ledger.setting("output"), ledger.setting("name")) == ("c", "b")


def test_a_ledger_is_readable_with_any_sqlite_shell_and_by_its_owner_alone(tmp_path: Path):
    path = tmp_path / "a.ledger"
    with Ledger.open(path) as ledger:
        plan(ledger, [{"prompt": "a fox"}])
    shell = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select * from overview').fetchall())"
    shown = subprocess.run([sys.executable, "-c", shell, path], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[('planned', 1, 3.0)]"
    assert path.stat().st_mode & 0o077 == 0 or sys.platform == "win32"


def test_a_second_reader_does_not_let_others_remove_the_log(tmp_path: Path):
    """A second look in one process does not let another process remove the log."""
    path = tmp_path / "a.ledger"
    with Ledger.open(path) as first, Ledger.open(path) as second:
        look = "import sys; from fluxwerk.ledger.ledger import Ledger; Ledger.open(sys.argv[1]).close()"
        subprocess.run([sys.executable, "-c", look, str(path)], check=True)
        assert Path(f"{path}-wal").exists()
        second.remember(base="here")
        assert first.setting("base") == "here"
    with Ledger.open(path) as third:
        assert third.setting("base") == "here"


def test_every_column_is_explained_in_the_sql():
    text = "\n".join(migrations.read_migrations())
    columns = [line for line in text.splitlines() if re.match(r"    \w+ +(text|integer|real)\b", line)]
    assert len(columns) > 60
    assert [line for line in columns if "--" not in line] == []


def test_an_old_schema_is_migrated_and_a_newer_one_refused(tmp_path: Path):
    """A new version is made out of the old one and a newer one is refused."""
    path = tmp_path / "a.ledger"
    texts = migrations.read_migrations()
    with Ledger.open(path) as ledger:
        plan(ledger, [{"prompt": "a fox"}])
    later = SQLiteDatabase(path)
    assert migrations.prepare(
        later, [*texts, "alter table jobs add column colour text; create index c on jobs (colour);"]
    )
    with later.read() as transaction:
        assert transaction.one("select colour, request from jobs")
    later.close()
    with pytest.raises(InvalidUsageError, match="newer fluxwerk"):
        Ledger.open(path)


def test_a_migration_that_fails_leaves_the_old_version_whole(tmp_path: Path):
    path = tmp_path / "a.ledger"
    Ledger.open(path).close()
    database = SQLiteDatabase(path)
    with pytest.raises(Exception, match="no such table"):
        migrations.prepare(database, [*migrations.read_migrations(), "create table x (a); drop table missing;"])
    assert "x" not in database.tables()
    database.close()
    Ledger.open(path).close()


def test_a_file_that_is_no_ledger_is_refused_with_its_name(tmp_path: Path):
    text = tmp_path / "a.txt"
    text.write_text("This is not a database, but it is long enough to be looked at. " * 20)
    with pytest.raises(InvalidUsageError, match=r"a\.txt is not a ledger"):
        Ledger.open(text)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()
    with pytest.raises(InvalidUsageError, match="not a ledger of fluxwerk"):
        Ledger.open(other)
    assert not is_database(text)
    assert not is_database(tmp_path / "missing")


def test_a_ledger_in_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be opened: No such file"):
        Ledger.open(tmp_path / "nowhere" / "a.ledger")


def test_a_transaction_that_fails_leaves_nothing_behind():
    ledger = ledger_with(1)

    def change_and_fail() -> None:
        with ledger.database.write() as transaction:
            transaction.run("update jobs set tag = 'changed'")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert ledger.job(1).tag is None


def test_the_database_tells_the_time_in_seconds_since_1970():
    with Ledger.open(":memory:") as ledger, ledger.database.read() as transaction:
        assert abs(transaction.now() - time.time()) < 5
