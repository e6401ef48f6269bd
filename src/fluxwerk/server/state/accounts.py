"""The server's accounts: whose key opens what, how many credits are left, and which slots are free."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from decimal import Decimal

from fluxwerk.catalog.rows import Model
from fluxwerk.server.state.account import Account, Standing
from fluxwerk.server.state.applications import Applications, KeyHolder
from fluxwerk.server.state.store import MemoryStore, Store
from fluxwerk.server.state.tasks import KEEP, Tasks

LONGEST_KEY = 512
PLENTY = Decimal(1_000_000)

# What the account of a key's SHA-256 was given in credits, or `None` if there is no such account.
Grants = Callable[[str], Decimal | None]


class Accounts:
    """Every account and its `tasks`; knows nothing of HTTP.

    Accounts are those that `grants` knows, called as `names` says, or those of `keys` with `credit` each; without
    either any well-formed key opens an account of its own, until the state has applications.  Images are kept for
    `keep` seconds after their task's end, and `queue` tasks of each account may wait beyond its slots.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        credit: Decimal = PLENTY,
        keep: float = KEEP,
        *,
        grants: Grants | None = None,
        names: Callable[[str], str | None] = lambda _: None,
        store: Store | None = None,
        queue: int = 0,
    ) -> None:
        self.store = store or MemoryStore()
        self.keep = keep
        self.tasks = Tasks(self.store, keep, queue)
        self.applications = Applications(self.store.database)
        known = {digest_of(key) for key in keys}
        self._grants = grants or _among(known, credit)
        self._names = names
        self._open = grants is None and not known
        # Submits that are being read by this process hold slots too, by account and pool.
        self._reading: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def account(self, key: str, now: float | None = None, pool: str = "") -> Account | None:
        """Find whose key this is at a moment, by default now; an account has a row once it has spent something."""
        return self.account_of(digest_of(key), now, pool)

    def account_of(self, digest: str, now: float | None = None, pool: str = "") -> Account | None:
        """Find the account of a key's SHA-256, and how it stands in a pool."""
        (found,) = self.accounts_of([(digest, time.time() if now is None else now, pool)])
        return found

    def accounts_of(self, asked: Sequence[tuple[str, float, str]]) -> list[Account | None]:
        """Find accounts in one exchange, each by the SHA-256 of a key, at a moment, and how it stands in a pool."""
        holders = self.applications.holders(asked)
        return [self._account(digest, holder) for (digest, _, _), holder in zip(asked, holders, strict=True)]

    def _account(self, digest: str, holder: KeyHolder) -> Account | None:
        application, spent = holder.application, holder.spent
        if application is not None:
            return Account(application.account, application.budget, spent, application, standing=holder.standing)
        granted = self._grants(digest)
        if granted is None or (self._open and holder.known_only):
            return None
        return Account(digest, granted, spent, name=self._names(digest), standing=holder.standing)

    def has_slot(self, account: Account, model: Model, now: float) -> bool:
        """Whether another task of this model is taken, into a slot or to wait for one, as the account was read."""
        standing = self._standing(account, model, now)
        room = self.tasks.queue.room(standing.waiting)
        return account.slots(model) - standing.busy + room > self.reading(account, model)

    def free(self, account: Account, model: Model, now: float) -> int:
        """Count the slots of a model that neither a task nor a submit that is being read holds."""
        busy = self._standing(account, model, now).busy
        return max(0, account.slots(model) - busy - self.reading(account, model))

    def reading(self, account: Account, model: Model) -> int:
        """Count the slots of a model that submits hold while they are being read."""
        return self._reading[account.id, model.pool]

    @contextmanager
    def hold(self, account: Account, model: Model) -> Generator[None]:
        """Hold a slot for as long as a submit is being read, so that slow ones cannot add up."""
        held = account.id, model.pool
        with self._lock:
            self._reading[held] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[held] -= 1
                if not self._reading[held]:
                    del self._reading[held]

    def _standing(self, account: Account, model: Model, now: float) -> Standing:
        if account.standing.pool == model.pool:
            return account.standing
        return self.applications.standing(account.id, now, model.pool)


def is_well_formed(key: str) -> bool:
    """Whether this could be a key at all; no prefix is asked for, since older keys are UUIDs."""
    return 0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key


def digest_of(key: str) -> str:
    """Return what is kept of a key: with 256 bits of chance in it a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


def _among(digests: set[str], credit: Decimal) -> Grants:
    return lambda digest: credit if not digests or digest in digests else None
