"""What the visits of one process share: other names of models, the visits that go on, and which model an account chose.

Only clients that set a model first and make images later need the last; it is forgotten with the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

# Accounts whose choice is remembered; an old one chooses again.
REMEMBERED_CHOICES = 10_000


class HasAccount(Protocol):
    """Whatever belongs to an account."""

    @property
    def account(self) -> str:
        """Name the account."""
        ...


V = TypeVar("V", bound=HasAccount)


@dataclass(slots=True)
class Room(Generic[V]):
    """The room behind the doors of one process; `aliases` are other names of models."""

    aliases: Mapping[str, str]
    _visits: list[V] = field(default_factory=list[V])
    _choices: OrderedDict[str, str] = field(default_factory=OrderedDict[str, str])

    @contextmanager
    def hold(self, visit: V) -> Generator[None]:
        """Count a visit for as long as it goes on."""
        self._visits.append(visit)
        try:
            yield
        finally:
            self._visits.remove(visit)

    def others(self, visit: V) -> Iterator[V]:
        """Find the account's other visits that go on."""
        return (other for other in self._visits if other is not visit and other.account == visit.account)

    def choose(self, account: str, model: str) -> None:
        """Remember the model that an account has chosen."""
        self._choices[account] = model
        self._choices.move_to_end(account)
        while len(self._choices) > REMEMBERED_CHOICES:
            self._choices.popitem(last=False)

    def chosen(self, account: str) -> str | None:
        """Return the model that an account has chosen."""
        return self._choices.get(account)
