"""The server's accounts: whose key opens what, how many credits are left, and which slots are free."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from fluxwerk.catalog.rows import Model
from fluxwerk.server.state.rows import credits_of
from fluxwerk.server.state.store import MemoryStore, Store
from fluxwerk.server.state.tasks import KEEP, Tasks

LONGEST_KEY = 512
PLENTY = Decimal(1_000_000)
NOTHING = Decimal(0)

# What the account of a key's SHA-256 was given in credits, or `None` if there is no such account.
Grants = Callable[[str], Decimal | None]


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays, as it stood when it was read: `granted` credits less those `spent`.

    The key itself is never kept, only its SHA-256.
    """

    digest: str = field(repr=False)
    granted: Decimal
    spent: Decimal = NOTHING

    @property
    def shown(self) -> str:
        """How the log names it: the first digits of the key's SHA-256."""
        return f"sha256:{self.digest[:8]}"

    @property
    def credits(self) -> Decimal:
        """What is left."""
        return self.granted - self.spent


class Accounts:
    """Every account and its `tasks`; knows nothing of HTTP.

    Accounts are those that `grants` knows, or those of `keys` with `credit` each; without either any well-formed key
    opens an account of its own.  Images are kept for `keep` seconds after their task's end.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        credit: Decimal = PLENTY,
        keep: float = KEEP,
        *,
        grants: Grants | None = None,
        store: Store | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        self.keep = keep
        self.tasks = Tasks(self.store, keep)
        self._grants = grants or _among({digest_of(key) for key in keys}, credit)
        # Submits that are being read by this process hold slots too, by account and pool.
        self._reading: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def account(self, key: str) -> Account | None:
        """Find whose key this is; an account has a row once it has spent something."""
        return self.account_of(digest_of(key))

    def account_of(self, digest: str) -> Account | None:
        """Find the account of a key's SHA-256."""
        granted = self._grants(digest)
        return None if granted is None else Account(digest, granted, self.spent(digest))

    def spent(self, digest: str) -> Decimal:
        """Say what an account has spent so far."""
        found = self.store.database.ask("select spent from account where id = :id", id=digest)
        return (credits_of(found[0]["spent"]) if found else None) or NOTHING

    def has_slot(self, account: Account, model: Model, now: float) -> bool:
        """Whether another task of this model may be in flight."""
        return self.free(account, model, now) > 0

    def free(self, account: Account, model: Model, now: float) -> int:
        """Count the slots of a model that neither a task nor a submit that is being read holds."""
        held = self.tasks.held(account.digest, model.pool, now, model.slots)
        return max(0, model.slots - len(held) - self._reading[account.digest, model.pool])

    @contextmanager
    def hold(self, account: Account, model: Model) -> Generator[None]:
        """Hold a slot for as long as a submit is being read, so that slow ones cannot add up."""
        held = account.digest, model.pool
        with self._lock:
            self._reading[held] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[held] -= 1
                if not self._reading[held]:
                    del self._reading[held]


def is_well_formed(key: str) -> bool:
    """Whether this could be a key at all; no prefix is asked for, since older keys are UUIDs."""
    return 0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key


def digest_of(key: str) -> str:
    """Return what is kept of a key: with 256 bits of chance in it a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


def _among(digests: set[str], credit: Decimal) -> Grants:
    return lambda digest: credit if not digests or digest in digests else None
