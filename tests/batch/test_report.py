from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from fluxwerk.batch.report import Rate, csv_lines, export, facts_of, rate, why
from fluxwerk.batch.run import RunEnd, RunProgress
from fluxwerk.cli.batch.table import bar, summary_lines, table, time_left
from fluxwerk.cli.batch.watch import BatchProgress, JsonBatchProgress, LiveBatchProgress
from fluxwerk.errors import InvalidUsageError, TaskFailedError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import Stage, credits_of, to_micro
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.storage import stream
from fluxwerk.testing import PretendClock
from support.jobs import BASE, ledger_with, status, task


def carried(clock: PretendClock | None = None) -> Ledger:
    """A ledger with one job of every kind."""
    ledger = ledger_with(6, clock)
    worker = ledger.leases.register(1000)
    jobs = ledger.submitting(worker, 5, BASE).jobs
    ledger.doubted(jobs[0], "the answer was lost")
    ledger.refused(jobs[1], TaskFailedError("no"))
    for job in jobs[2:]:
        accepted = ledger.submitted(job, task(f"task-{job.id}"))
        assert accepted
        if job.id > 3:
            ready = ledger.ready(accepted, status(accepted))
            if job.id > 4:
                ledger.saved(ready, Saved("/images/5.png", "ab"))
    return ledger


def test_the_sums_tell_apart_what_is_spent_reserved_in_doubt_and_to_come():
    sums = carried().budget.sums()
    assert (sums.spent, sums.reserved, sums.doubtful, sums.planned, sums.committed) == (3, 6, 3, 3, 12)
    assert sums.count() == 6
    assert facts_of(sums)["jobs"]["in doubt"] == 1


def test_costs_by_any_group_add_up_to_what_is_committed():
    ledger = carried()
    for by in ("day", "model", "tag", "stage"):
        rows = list(ledger.budget.costs(by))
        assert sum(row[2] for row in rows) == ledger.budget.sums().committed
        assert sum(row[3] for row in rows) == 3


def test_a_balance_is_kept_beside_what_was_committed_at_that_moment():
    ledger = carried()
    ledger.budget.note_balance(Decimal("99.5"))
    [reading] = ledger.budget.readings()
    assert (reading.balance, reading.committed) == (Decimal("99.5"), 12)


@pytest.mark.parametrize("amount", ["0", "0.000001", "1.4", "100", "1000000", "3.25"])
def test_an_amount_survives_the_database(amount: str):
    micro = to_micro(Decimal(amount))
    assert micro is not None
    assert credits_of(micro) == Decimal(amount)
    assert "E" not in str(credits_of(micro))


def test_before_a_run_saves_images_earlier_ones_tell_the_time_left():
    clock = PretendClock()
    ledger = ledger_with(50, clock)
    worker = ledger.leases.register(1000)
    (job,) = ledger.submitting(worker, 1, BASE).jobs
    accepted = ledger.submitted(job, task())
    clock.sleep(12)
    ledger.saved(ledger.ready(accepted, status(accepted)), Saved("/images/1.png", "ab"))
    clock.sleep(1000)
    assert rate(ledger, ledger.budget.sums()) == Rate(0.0, 36.0), "49 images, 24 at a time, 12 seconds each"
    assert rate(ledger_with(3), ledger_with(3).budget.sums()) == Rate(0.0, None)


def test_the_bar_shows_what_is_saved_and_what_is_lost():
    drawn = bar(carried().budget.sums())
    assert (drawn.count("█"), drawn.count("░")) == (15, 15)
    assert bar(ledger_with(0).budget.sums()).count("░") == 30


def test_the_rate_of_the_last_minute_predicts_the_rest():
    """The rate is that of the last minute and tells how long the rest takes."""
    clock = PretendClock()
    ledger = carried(clock)
    clock.sleep(10)
    speed = rate(ledger, ledger.budget.sums())
    assert speed == Rate(0.1, 30.0)
    clock.sleep(100)
    assert rate(ledger, ledger.budget.sums()) == Rate(0.0, None)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "time left unknown"), (0, "0:00:00 left"), (3723.4, "1:02:03 left")]
)
def test_the_time_left_is_told_in_hours(seconds: float | None, words: str):
    assert time_left(Rate(1.0, seconds)) == words


def test_the_table_shows_every_stage_and_the_money():
    sums = carried().budget.sums()
    file = io.StringIO()
    Console(file=file, width=100).print(table(sums, Rate(2.0, 30.0), "held: [the disk] is full"))
    shown = file.getvalue()
    for words in (*Stage, "3 credits ($0.03) in doubt", "2.0/s, "[:5], "held: [the disk] is full"):
        assert words in shown
    lines = " ".join(summary_lines(sums, Rate(2.0, 30.0)))
    assert "6 credits ($0.06) reserved" in lines
    assert "no jobs" in summary_lines(Sums(cap=Decimal(5)), Rate(0.0, None))[0]
    assert "cap 5 credits" in summary_lines(Sums(cap=Decimal(5)), Rate(0.0, None))[1]


def test_a_watcher_tells_what_goes_wrong_at_once(capsys: pytest.CaptureFixture[str]):
    ledger = carried()
    watch = BatchProgress(ledger)
    watch.show(RunProgress("saved", ledger.job(5)))
    watch.show(RunProgress("failed", ledger.job(2), "Failed: no"))
    watch.show(RunProgress("held", text="the disk is full"))
    watch.finish(RunEnd(), ledger.budget.sums())
    told = capsys.readouterr()
    assert told.err.splitlines() == ["job 2 (line 2) failed: Failed: no", "held: the disk is full"]
    assert "1 submits were never answered" in told.out
    assert "1 jobs failed" in told.out


def test_a_live_table_shows_the_last_problem_below_it():
    """A live watcher draws its table and keeps the last trouble under it."""
    live = LiveBatchProgress(carried())
    live.show(RunProgress("held", text="[the disk] is full"))
    live._redraw()
    assert "disk" in str(live.drawn.renderable.caption)


def test_a_machine_hears_everything_as_json(capsys: pytest.CaptureFixture[str]):
    ledger = carried()
    machine = JsonBatchProgress(ledger)
    machine.show(RunProgress("saved", ledger.job(5), saved=Saved("/images/5.png", "ab")))
    assert capsys.readouterr().out.startswith('{"event":"saved","job":5,"line":5,"model":"flux-2-pro","cost":3,')


def test_the_story_of_a_job_ends_with_what_can_be_done():
    ledger = carried()
    advice = {1: "settle 1 --collect", 2: "retry 2", 3: "collects it", 4: "downloads it", 6: "waits for a slot"}
    for number, words in advice.items():
        assert words in why(ledger, number)
    assert "→ saved" in why(ledger, 5)
    assert "sig=" not in why(ledger, 4)
    _ = ledger.submitting(ledger.leases.register(), 1, BASE)
    assert "If that process has died" in why(ledger, 6)


def test_an_export_of_nothing_still_names_its_columns(tmp_path: Path):
    assert list(csv_lines([], ["a", "b"])) == ["a,b\r\n"]
    assert export(ledger_with(0), tmp_path / "a.csv") == 0
    assert (tmp_path / "a.csv").read_text().startswith("job,line,item")


def test_an_export_that_fails_leaves_no_half_file(tmp_path: Path):
    def parts():
        yield b"half"
        raise InvalidUsageError("broken")

    with pytest.raises(InvalidUsageError):
        stream(parts(), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        " =1",
        "\u3000=1",
        "\uff1d1",
        " \uff0b1",
        "\uff0d1",
        "\uff201",
        "\u200b=1",
        "\ufeff@A1",
        "\n=1",
        "\t1",
        "+1",
        "-1",
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_escaped(text: str):
    [_, line] = "".join(csv_lines([{"prompt": text}], ["prompt"])).split("\r\n", 1)
    assert line.lstrip('"').startswith("'")


@pytest.mark.parametrize("text", ["a fox", "1 = 1", "", " ", "\u2212", "\u00e9=1"])
def test_a_text_that_no_spreadsheet_runs_stays_as_it_is(text: str):
    [_, line] = "".join(csv_lines([{"prompt": text}], ["prompt"])).split("\r\n", 1)
    assert "'" not in line
