"""What a batch run shows: a live table on a terminal, a line every ten seconds elsewhere, or JSON lines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fluxwerk.batch.batch import OFFLINE
from fluxwerk.batch.report import facts_of, rate
from fluxwerk.batch.run import EndReason, RunEnd, RunProgress
from fluxwerk.cli.batch.table import job_counts, summary_lines, table
from fluxwerk.cli.console import money, put_json
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import UNFINISHED, Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.types import Json

SHOWN_KINDS = frozenset({"failed", "in doubt", "held", "released", "settled", "unsettled", "stopping"})
REDRAW_SECONDS = 0.5
# Without a terminal, a line every ten seconds keeps a log short.
LINE_SECONDS = 10.0


class BatchProgress:
    """Plain lines on stderr; a failure is shown at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._shown_at = time.monotonic()

    def show(self, progress: RunProgress) -> None:
        """Show one thing that happened."""
        if progress.kind in SHOWN_KINDS:
            self._say(_words(progress))

    async def refresh(self) -> None:
        """Show where the work is, now and then, until cancelled."""
        while True:
            await asyncio.sleep(REDRAW_SECONDS)
            self._redraw()

    def finish(self, end: RunEnd, sums: Sums) -> None:
        """Show how it ended, on stdout."""
        free = " on paper; the offline server charges nothing" if self._ledger.setting("base") == OFFLINE else ""
        click.echo(f"{job_counts(sums)}; {money(sums.spent)} spent{free}.")
        for line in _next_steps(end, sums):
            click.echo(line)

    def _say(self, line: str) -> None:
        click.echo(line, err=True)

    def _redraw(self) -> None:
        if time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._shown_at = time.monotonic()
            sums = self._ledger.budget.sums()
            self._say("; ".join(summary_lines(sums, rate(self._ledger, sums))))


class LiveBatchProgress(BatchProgress):
    """A table that is drawn anew twice a second."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        from rich.console import Console  # noqa: PLC0415  (only a terminal pays for it)
        from rich.live import Live as Drawn  # noqa: PLC0415

        self._note = ""
        self.drawn = Drawn(self._table(), console=Console(stderr=True), auto_refresh=False, transient=True)

    def _say(self, line: str) -> None:
        from rich.markup import escape  # noqa: PLC0415

        self._note = line
        self.drawn.console.print(escape(line))

    def _redraw(self) -> None:
        self.drawn.update(self._table(), refresh=True)

    def _table(self) -> Any:
        sums = self._ledger.budget.sums()
        return table(sums, rate(self._ledger, sums), self._note)


class JsonBatchProgress(BatchProgress):
    """One JSON object for each thing that happens, on stdout."""

    def show(self, progress: RunProgress) -> None:
        """Show one thing that happened."""
        event: dict[str, Json] = {"event": progress.kind}
        if progress.job:
            job = progress.job
            event |= {"job": job.id, "line": job.line, "model": job.model, "cost": job.cost}
            event |= {"task": job.task.id} if job.task else {}
        if progress.failure:
            event["failure"] = progress.failure
        if progress.saved:
            event |= {"path": progress.saved.path, "sha256": progress.saved.sha256}
        if progress.text:
            event["text"] = progress.text
        put_json(event)
        sys.stdout.flush()

    def finish(self, end: RunEnd, sums: Sums) -> None:
        """Show how it ended."""
        put_json({"event": "done", "ended": end.reason, "text": end.text, **facts_of(sums, rate(self._ledger, sums))})

    def _redraw(self) -> None:
        """Nothing needs to be shown in between."""


@contextmanager
def open_watch(path: Path, *, as_json: bool) -> Generator[BatchProgress]:
    """Choose how a run is shown; the ledger is opened a second time, so that showing waits for no write."""
    with Ledger.open(path) as ledger:
        if as_json:
            yield JsonBatchProgress(ledger)
        elif sys.stderr.isatty():
            live = LiveBatchProgress(ledger)
            with live.drawn:
                yield live
        else:
            yield BatchProgress(ledger)


def _words(progress: RunProgress) -> str:
    if progress.job:
        return f"job {progress.job.id} (line {progress.job.line}) {progress.kind}: {progress.text}"
    return f"{progress.kind}: {progress.text}"


def _next_steps(end: RunEnd, sums: Sums) -> Generator[str]:
    if end.text:
        yield f"The run ended early: {end.text}."
    if sums.count(*UNFINISHED):
        yield f"{sums.count(*UNFINISHED)} jobs are in flight and paid for; the next `fluxwerk batch run` collects them."
    if end.reason is EndReason.CAPPED:
        yield f"{sums.count(Stage.PLANNED)} jobs are left; raise --max-cost to go on."
    if sums.count(Stage.DOUBTFUL):
        yield f"{sums.count(Stage.DOUBTFUL)} submits were never answered; `fluxwerk batch settle` asks about each."
    if sums.count(Stage.FAILED):
        yield f"{sums.count(Stage.FAILED)} jobs failed; `fluxwerk batch retry --all` tries them again."
