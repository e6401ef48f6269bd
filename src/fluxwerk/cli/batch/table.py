"""The sums of a ledger as a table for terminals, and as lines for everything else."""

from __future__ import annotations

from typing import Any

from fluxwerk.batch.report import Rate
from fluxwerk.cli.console import money
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import Stage

# The letters of a bar.
BAR = 30
STYLES = {Stage.SAVED: "green", Stage.FAILED: "red", Stage.DOUBTFUL: "yellow"}


def table(sums: Sums, speed: Rate, note: str = "") -> Any:
    """Draw the live table with rich."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  (only a terminal pays for it)
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, caption=escape(note) or None, caption_justify="left")
    drawn.add_column("stage")
    drawn.add_column("jobs", justify="right")
    drawn.add_column("money")
    notes = {
        Stage.PLANNED: f"about {money(sums.planned)} to come",
        Stage.SUBMITTED: f"{money(sums.reserved)} reserved",
        Stage.SAVED: f"{money(sums.spent)} spent",
        Stage.DOUBTFUL: f"{money(sums.doubtful)} in doubt" if sums.doubtful else "",
    }
    for stage in Stage:
        count = sums.jobs.get(stage, 0)
        drawn.add_row(stage, str(count), notes.get(stage, ""), style=STYLES.get(stage, "") if count else "dim")
    drawn.add_section()
    drawn.add_row("images", f"{sums.count(Stage.SAVED)}/{sums.count()}", bar(sums))
    drawn.add_row("", f"{speed.per_second:.1f}/s", ", ".join([*cap_words(sums), time_left(speed)]))
    return drawn


def bar(sums: Sums) -> str:
    """Draw how much of the work has ended: what is saved, and what failed or is in doubt."""
    count = max(1, sums.count())
    saved = BAR * sums.count(Stage.SAVED) // count
    lost = BAR * sums.count(Stage.SAVED, Stage.FAILED, Stage.DOUBTFUL) // count - saved
    return f"[green]{'█' * saved}[/][red]{'█' * lost}[/][dim]{'░' * (BAR - saved - lost)}[/]"


def summary_lines(sums: Sums, speed: Rate) -> list[str]:
    """Write the same as two lines."""
    parts = [f"{money(sums.spent)} spent", f"{money(sums.reserved)} reserved", f"about {money(sums.planned)} to come"]
    if sums.doubtful:
        parts.insert(2, f"{money(sums.doubtful)} in doubt")
    return [job_counts(sums), ", ".join([*parts, *cap_words(sums), f"{speed.per_second:.1f}/s", time_left(speed)])]


def job_counts(sums: Sums) -> str:
    """Count the jobs of each stage that has any."""
    return ", ".join(f"{sums.jobs[stage]} {stage}" for stage in Stage if sums.jobs.get(stage)) or "no jobs"


def cap_words(sums: Sums) -> list[str]:
    """Name the cap, if there is one."""
    return [] if sums.cap is None else [f"cap {money(sums.cap)}"]


def time_left(speed: Rate) -> str:
    """Estimate how long the rest takes."""
    if speed.seconds_left is None:
        return "time left unknown"
    minutes, seconds = divmod(round(speed.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left"
