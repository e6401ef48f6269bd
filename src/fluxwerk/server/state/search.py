"""Which of an account's tasks a list shows: the newest first, by status, model, words of the prompt and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fluxwerk.server.state.rows import BAR

ESCAPED = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


@dataclass(frozen=True, slots=True)
class Search:
    """What is wanted; `words` must all be in the prompt, times are seconds since 1970, `before` is a task's id."""

    status: str | None = None
    model: str | None = None
    tag: str | None = None
    words: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    before: str | None = None

    def clause(self) -> tuple[str, dict[str, Any]]:
        """Write the conditions of this search in SQL, each with `and` before it, and their values."""
        conditions = {
            "status": "case when ready_at <= :now then word else 'Pending' end = :status",
            "model": "model = :model",
            "tag": "tags like :tag escape '\\'",
            "since": "accepted >= :since",
            "until": "accepted < :until",
            "before": "number < (select number from task where id = :before)",
        }
        wanted = {name: getattr(self, name) for name in conditions}
        values = {name: value for name, value in wanted.items() if value is not None}
        written = [conditions[name] for name in values]
        if self.tag is not None:
            values["tag"] = f"%{BAR}{self.tag.translate(ESCAPED)}{BAR}%"
        for number, word in enumerate(self.words):
            values[f"word_{number}"] = f"%{word.casefold().translate(ESCAPED)}%"
            written.append(f"words like :word_{number} escape '\\'")
        return "".join(f" and {condition}" for condition in written), values
