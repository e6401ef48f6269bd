"""The options of `fluxwerk serve` with the engine `upstream`: where the other service is, and on whose account."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.client.session import WebhookListener
    from fluxwerk.engines.upstream.engine import UpstreamEngine
    from fluxwerk.server.state.store import Store
    from fluxwerk.webhook import Receiver

OTHERS = 0o077
ACCOUNT_DIGITS = 12
DEFAULT_PORTS = {"http": 80, "https": 443}
RECEIVER_PATH = "/v1/upstream/webhooks"


def upstream_engine(
    store: Store,
    url: str | None,
    key_file: str | None,
    delivery_hosts: tuple[str, ...] = (),
    webhook: WebhookListener | None = None,
) -> UpstreamEngine:
    """Create the engine, which writes into the store; its key is in the file, or in BFL_API_KEY, and nowhere else."""
    from fluxwerk.client.client import AsyncClient  # noqa: PLC0415
    from fluxwerk.engines.upstream.engine import UpstreamEngine  # noqa: PLC0415
    from fluxwerk.server.state.upstream import RowJournal  # noqa: PLC0415

    key = read_key(Path(key_file)) if key_file else os.environ.get("BFL_API_KEY", "").strip()
    if not key:
        hint = "export BFL_API_KEY=..., or name a file with --upstream-key-file"
        raise InvalidUsageError("", faults=[Fault("--engine upstream", None, "needs the service's key", hint)])
    client = AsyncClient(key, base_url=url, delivery_hosts=delivery_hosts)
    account = account_of(store.secret, client.access.base, key)
    return UpstreamEngine(client, RowJournal(store, service=account), webhook=webhook)


def account_of(secret: bytes, base: str, key: str) -> str:
    """Name the account that a key opens at a service, alike in every process of a state; the key cannot be read off.

    One address may be written in several ways.
    """
    parts = urlsplit(base)
    port = "" if parts.port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    where = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
    return hmac.digest(secret, f"{where} {key}".encode(), "sha256").hex()[:ACCOUNT_DIGITS]


def receiver(store: Store, public_url: str | None) -> Receiver | None:
    """Make what receives the service's webhooks at the public address of the servers, if that is https.

    All processes of one state sign and are found alike, and what one of a fleet receives wakes the others.  A receiver
    may be asked by anyone: a webhook is a hint to look, and never news.
    """
    from fluxwerk.server.state.fleet import FleetStore  # noqa: PLC0415
    from fluxwerk.webhook import Receiver  # noqa: PLC0415

    if public_url is None or not public_url.startswith("https://"):
        return None
    secret, token = (hmac.digest(store.secret, purpose, "sha256").hex() for purpose in (b"webhooks", b"receiver"))
    url = f"{public_url.rstrip('/')}{RECEIVER_PATH}"
    wakeup = store.wakeup if isinstance(store, FleetStore) else None
    return Receiver(secret, url=url, token=token, accept_secret_header=True, wakeup=wakeup)


def read_key(file: Path) -> str:
    """Read a key from a file that only its owner can read; raises `InvalidUsageError`."""
    try:
        mode = file.stat().st_mode
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise _wrong(
            file, f"cannot be read: {getattr(fault, 'strerror', None) or fault}", "name another file"
        ) from None
    if os.name == "posix" and stat.S_IMODE(mode) & OTHERS:
        raise _wrong(file, f"has the mode {stat.S_IMODE(mode):03o}, and must be its owner's alone", f"chmod 600 {file}")
    if not key:
        raise _wrong(file, "is empty", "write the service's key into it")
    return key


def _wrong(file: Path, what: str, hint: str) -> InvalidUsageError:
    return InvalidUsageError("", faults=[Fault("--upstream-key-file", str(file), what, hint)])
