"""API keys: made with 256 bits of chance, shown once, kept as SHA-256 in a file that commands and server share."""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.server.state.accounts import PLENTY, digest_of
from fluxwerk.server.state.application import NewKey, check_name
from fluxwerk.storage import save

PREFIX = "bfl_"
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BYTES = 32
# 62 ** 43 > 2 ** 256 and 62 ** 6 > 2 ** 32.
SECRET, CHECK = 43, 6
SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{SECRET}}})([0-9A-Za-z]{{{CHECK}}})")
log = logging.getLogger("fluxwerk.server")
MOST_CREDITS = 10**12


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a key: enough to find it and to name it, and nothing that opens anything."""

    name: str
    sha256: str
    prefix: str
    last4: str
    credits: str
    created: str
    revoked: str | None = None

    @property
    def shown(self) -> str:
        """How a person tells it from the others."""
        return f"{self.prefix}…{self.last4}"


def make(entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Make a key: `bfl_`, 256 bits in 43 digits, and a checksum by which scanners and typing errors are told apart."""
    secret = _digits(int.from_bytes(entropy(BYTES)), SECRET)
    return f"{PREFIX}{secret}{_checksum(secret)}"


def describe(key: str) -> NewKey:
    """Return what is kept of a key."""
    return NewKey(digest_of(key), f"{PREFIX if key.startswith(PREFIX) else ''}…{key[-4:]}")


def is_mistyped(key: str) -> bool:
    """Whether a key has the shape of ours but not its checksum; keys from elsewhere have neither."""
    found = SHAPE.fullmatch(key)
    return found is not None and _checksum(found[1]) != found[2]


class Keyring:
    """The keys in a JSON file; the server reads it again when it has changed, so that a revoked key ends at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int] | None = None
        self._entries: tuple[Entry, ...] = ()
        self._granted: dict[str, Decimal] = {}
        self._names: dict[str, str] = {}
        self.entries()

    def entries(self) -> tuple[Entry, ...]:
        """Every key of the file, revoked ones too; raises `InvalidUsageError` for a file that is none."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._entries, self._granted, self._names = None, (), {}, {}
            return ()
        stamp = status.st_mtime_ns, status.st_ino
        if stamp != self._stamp:
            self._stamp = stamp
            self._entries = _read(self._path)
            opened = [one for one in self._entries if one.revoked is None]
            self._granted = {one.sha256: Decimal(one.credits) for one in opened}
            self._names = {one.sha256: one.name for one in opened}
        return self._entries

    def granted(self, digest: str) -> Decimal | None:
        """Say how many credits the key with this SHA-256 was given, or `None` if it opens nothing."""
        try:
            self.entries()
        except InvalidUsageError as fault:
            # A person is editing the file; what was read before holds until it changes again.
            log.warning("the keys file cannot be read: %s", fault)
        return self._granted.get(digest)

    def name_of(self, digest: str) -> str | None:
        """Return the name of the open key with this SHA-256, as the file was read last."""
        return self._names.get(digest)

    def add(self, name: str, credit: Decimal = PLENTY, key: str | None = None) -> str:
        """Make a key, or take one that exists, and return it: this is the only time that it can be seen."""
        check_name(name)
        if any(one.name == name and one.revoked is None for one in self.entries()):
            raise InvalidUsageError(
                "", faults=[Fault("name", name, "is taken", "revoke that key first, or choose another name")]
            )
        key = make() if key is None else key
        prefix = PREFIX if key.startswith(PREFIX) else ""
        entry = Entry(name, digest_of(key), prefix, key[-4:], str(credit), _today())
        self._save((*self.entries(), entry))
        return key

    def revoke(self, name: str) -> Entry:
        """Close a key by its name or by its last four characters; its tasks go on, and its row stays."""
        found = [one for one in self.entries() if one.revoked is None and name in (one.name, one.last4)]
        if len(found) != 1:
            allowed = "is not an open key" if not found else "is more than one key; give the name"
            raise InvalidUsageError("", faults=[Fault("name", name, allowed, "`fluxwerk keys list` shows them")])
        closed = Entry(**{**asdict(found[0]), "revoked": _today()})
        self._save(tuple(closed if one is found[0] else one for one in self.entries()))
        return closed

    def _save(self, entries: tuple[Entry, ...]) -> None:
        text = json.dumps({"keys": [asdict(one) for one in entries]}, indent=2, ensure_ascii=False)
        save(text.encode() + b"\n", self._path).chmod(0o600)
        self.entries()


def is_credit(amount: Decimal) -> bool:
    """Whether this amount may be granted: from nothing to a sum of which every hundredth can still be counted."""
    return amount.is_finite() and 0 <= amount <= MOST_CREDITS


def _read(path: Path) -> tuple[Entry, ...]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["keys"]
        entries = tuple(Entry(**row) for row in rows)
        for entry in entries:
            if not is_credit(Decimal(entry.credits)):
                raise ValueError(f"{entry.credits} credits")
    except (OSError, ValueError, TypeError, KeyError, InvalidOperation) as fault:
        raise InvalidUsageError(f"{path} is not a file of keys ({type(fault).__name__}: {fault}).") from None
    return entries


def _digits(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def _checksum(secret: str) -> str:
    return _digits(zlib.crc32(secret.encode()), CHECK)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
