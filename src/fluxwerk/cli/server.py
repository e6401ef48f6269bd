"""What the options of `fluxwerk serve` and `fluxwerk worker` describe: accounts, guard, faults and addresses."""

from __future__ import annotations

import socket
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fluxwerk import catalog
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.faults.rules import Faults
    from fluxwerk.server.fetch import Guard
    from fluxwerk.server.state.accounts import Accounts
    from fluxwerk.server.state.store import Store

PACKAGES = "pip install 'fluxwerk[server]'"


def check_packages(module: str = "fluxwerk.server.app") -> None:
    """Refuse to start without the packages that a module of the server imports; raises `InvalidUsageError`."""
    try:
        import_module(module)
    except ModuleNotFoundError as missing:
        raise InvalidUsageError(f"The server needs the package {missing.name}. Install it: {PACKAGES}") from None


def open_accounts(
    keys: tuple[str, ...], keyring: str | None, credit: str, keep: float, store: Store, queue: int
) -> Accounts:
    """Create the accounts of --key or --keys; raises `InvalidUsageError`."""
    from fluxwerk.server.state.accounts import Accounts  # noqa: PLC0415
    from fluxwerk.server.state.keys import Keyring  # noqa: PLC0415

    if keys and keyring:
        raise InvalidUsageError("--key and --keys exclude each other; use one of them.")
    if keyring and not Path(keyring).exists():
        raise InvalidUsageError(
            "",
            faults=[
                Fault("--keys", keyring, "does not exist", f"create it with fluxwerk keys add NAME --file {keyring}")
            ],
        )
    granted = credit_of("--credits", credit)
    if keyring is None:
        return Accounts(keys, granted, keep, store=store, queue=queue)
    ring = Keyring(keyring)
    return Accounts(keep=keep, grants=ring.granted, names=ring.name_of, store=store, queue=queue)


def credit_of(option: str, text: str) -> Decimal:
    """Read credits from the command line; raises `InvalidUsageError`."""
    from fluxwerk.server.state.keys import MOST_CREDITS, is_credit  # noqa: PLC0415

    try:
        credit = Decimal(text)
    except ArithmeticError:
        credit = Decimal("nan")
    if not is_credit(credit):
        raise InvalidUsageError("", faults=[Fault(option, text, f"must be a number from 0 to {MOST_CREDITS:,}")])
    return credit


def open_guard(networks: tuple[str, ...], hosts: tuple[str, ...]) -> Guard:
    """Create the guard of what is fetched and sent; raises `InvalidUsageError` for what is not a network."""
    from fluxwerk.server.fetch import Guard  # noqa: PLC0415

    try:
        return Guard(networks, plain=hosts)
    except ValueError as fault:
        raise InvalidUsageError(
            "", faults=[Fault("--allow-network", ", ".join(networks), f"{fault}", "such as 127.0.0.0/8")]
        ) from None


def load_faults(path: str | None) -> Faults:
    """Read the rules of --trouble."""
    from fluxwerk.server.faults.rules import Faults, load  # noqa: PLC0415

    return load(path) if path else Faults()


def read_alias(text: str) -> tuple[str, str]:
    """Read an --alias as the name and the model that it means; raises `InvalidUsageError`."""
    name, _, model = (part.strip() for part in text.partition("="))
    if not name or not model:
        hint = "such as dall-e-3=flux-2-pro"
        raise InvalidUsageError("", faults=[Fault("--alias", text, "must be NAME=MODEL", hint)])
    return name, catalog.get_model(model).name


def check_public_url(url: str | None) -> None:
    """Refuse a --public-url that is not scheme, host and port alone; raises `InvalidUsageError`."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    from fluxwerk.server.address import take_apart  # noqa: PLC0415

    if url is None:
        return
    parts = take_apart(url)
    if parts is None or urlsplit(url).path.strip("/") or parts.query or parts.fragment:
        hint = "give scheme, host and port, such as https://images.example"
        raise InvalidUsageError(
            "", faults=[Fault("--public-url", url, "must be an http or https URL without a path", hint)]
        )


def listen_at(host: str, port: int) -> socket.socket:
    """Listen at --host and --port; raises `InvalidUsageError` for a place that is taken."""
    from fluxwerk.server.loopback import listen  # noqa: PLC0415

    try:
        return listen(host, port)
    except OSError as trouble:
        raise cannot_listen("--port", host, port, trouble) from None


def cannot_listen(option: str, host: str, port: int, trouble: OSError) -> InvalidUsageError:
    """Make the error for a place at which the system lets nobody listen."""
    wrong = f"cannot listen on {host}:{port}: {trouble.strerror}"
    return InvalidUsageError("", faults=[Fault(option, port, wrong, "choose another port, or 0 for a free one")])
