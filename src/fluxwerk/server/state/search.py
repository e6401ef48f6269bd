"""Which of an account's tasks a list shows: the newest first, by status, model, words of the prompt and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fluxwerk.server.state.accounts import Account, Accounts, TaskRecord


@dataclass(frozen=True, slots=True)
class Search:
    """What is wanted; `words` must all be in the prompt, times are seconds since 1970, `before` is a task's id."""

    status: str | None = None
    model: str | None = None
    words: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    before: str | None = None

    def fits(self, job: TaskRecord, now: float) -> bool:
        """Whether a list shows this task."""
        prompt = job.order.prompt.casefold()
        return (
            (self.status is None or self.status == (job.word if job.has_ended(now) else "Pending"))
            and self.model in (None, job.model.name)
            and all(word.casefold() in prompt for word in self.words)
            and (self.since is None or job.accepted >= self.since)
            and (self.until is None or job.accepted < self.until)
        )


def find(accounts: Accounts, account: Account, wanted: Search, now: float) -> Iterator[TaskRecord]:
    """Yield the tasks of an account that a list shows, the newest first, from behind `before` on."""
    reached = wanted.before is None
    for job in reversed(accounts.jobs.values()):
        if job.account is not account:
            continue
        if reached and wanted.fits(job, now):
            yield job
        reached = reached or job.task.id == wanted.before
