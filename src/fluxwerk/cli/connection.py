"""Where a command sends its requests: the BFL service, another server, or an offline server of its own."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from fluxwerk.errors import InvalidUsageError
from fluxwerk.types import OnEvent, ignore_event

F = TypeVar("F", bound=Callable[..., Any])
ENV_FILE = Path(".env")
OFFLINE_KEY = "offline"


@dataclass(frozen=True, slots=True)
class Connection:
    """The values of the connection options; `timeout` in seconds."""

    region: str | None
    base_url: str | None
    env_file: Path | None
    offline: bool
    timeout: float
    delivery_hosts: tuple[str, ...]


def connection_options(command: F) -> F:
    """Add the connection options; the command receives them as one argument `connection`."""
    return _with_options(command, _TIMEOUT)


def batch_connection_options(command: F) -> F:
    """Add the same options to a run of many images, which has no time limit unless one is given."""
    return _with_options(command, _RUN_TIMEOUT)


def _with_options(command: F, timeout: Callable[[Any], Any]) -> F:
    def gather(**given: Any) -> Any:
        names = ("region", "base_url", "env_file", "offline", "timeout", "delivery_hosts")
        return command(connection=Connection(*(given.pop(name) for name in names)), **given)

    gather.__name__, gather.__doc__ = command.__name__, command.__doc__
    gather.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (timeout, *reversed(_OPTIONS)):
        option(gather)
    return gather  # type: ignore[return-value]


_OPTIONS = (
    click.option(
        "--offline", is_flag=True, help="Use the offline engine of this machine: placeholder images, no key, no charge."
    ),
    click.option("--region", type=click.Choice(["global", "eu", "us"]), help="Region of the BFL service."),
    click.option("--base-url", metavar="URL", help="Address of another server with the same API."),
    click.option(
        "--delivery-host",
        "delivery_hosts",
        multiple=True,
        metavar="HOST",
        help="Host that may deliver images by plain http, if --base-url is plain http; may be repeated.",
    ),
    click.option(
        "--env-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with BFL_API_KEY, read without the variable; .env in this folder by default, then the keyring.",
    ),
)
_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=600.0,
    show_default=True,
    help="Deadline of the whole command, in seconds.",
)
_RUN_TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=math.inf,
    help="Seconds for the whole run, without limit by default; the next run collects what is still in flight then.",
)


@contextmanager
def connected(connection: Connection, on_event: OnEvent = ignore_event, **further: Any) -> Generator[Any]:
    """Yield a client; with --offline it is connected to an offline server that ends with the command.

    `further` are other options of the client.
    """
    from fluxwerk.client.client import Client  # noqa: PLC0415  (slow to import, and only needed to send)

    history = _history()
    if connection.offline:
        if connection.region or connection.base_url:
            raise InvalidUsageError("--offline starts its own server; leave out --region and --base-url.")
        with (
            _loopback() as base,
            Client(
                OFFLINE_KEY, base_url=base, timeout=connection.timeout, on_event=on_event, history=history, **further
            ) as client,
        ):
            yield client
        return
    key = _stored_key(connection.env_file)
    with Client(
        key,
        region=connection.region,
        base_url=connection.base_url,
        timeout=connection.timeout,
        on_event=on_event,
        history=history,
        delivery_hosts=connection.delivery_hosts,
        **further,
    ) as client:
        yield client


@contextmanager
def connected_async(connection: Connection) -> Generator[Any]:
    """Yield an `AsyncClient`; with --offline it is connected to an offline server that ends with the command."""
    from fluxwerk.client.client import AsyncClient  # noqa: PLC0415

    history = _history()
    if connection.offline:
        if connection.region or connection.base_url:
            raise InvalidUsageError("--offline starts its own server; leave out --region and --base-url.")
        with _loopback() as base:
            yield AsyncClient(OFFLINE_KEY, base_url=base, timeout=connection.timeout, history=history)
        return
    key = _stored_key(connection.env_file)
    yield AsyncClient(
        key,
        region=connection.region,
        base_url=connection.base_url,
        timeout=connection.timeout,
        history=history,
        delivery_hosts=connection.delivery_hosts,
    )


def _history() -> Any:
    """Return what this user's earlier commands learned about how long tasks take: a command is one short process."""
    from fluxwerk.polling.history import PollingHistory, user_file  # noqa: PLC0415

    return PollingHistory(user_file())


@contextmanager
def _loopback() -> Generator[str]:
    """Run an offline server, and yield its base URL."""
    # The command checks the request itself; the server's remarks about it would say everything twice.
    log = logging.getLogger("fluxwerk.server")
    before = log.level
    log.setLevel(logging.ERROR)
    with ExitStack() as stack:
        stack.callback(log.setLevel, before)
        try:
            from fluxwerk.server.loopback import loopback  # noqa: PLC0415

            base = stack.enter_context(loopback())
        except ModuleNotFoundError as missing:
            raise InvalidUsageError(
                f"--offline needs the package {missing.name}. Install it: pip install 'fluxwerk[all]'"
            ) from None
        yield base


def _stored_key(given: Path | None) -> str | None:
    """Read the key from the environment, a file, or the keyring, in this order."""
    key = os.environ.get("BFL_API_KEY") or _key_from_file(given)
    if key:
        return key
    from fluxwerk.cli.keychain import read_keyring  # noqa: PLC0415  (only without another key)

    return read_keyring()


def _key_from_file(given: Path | None) -> str | None:
    file = given or ENV_FILE
    if not file.is_file():
        return None
    from dotenv import dotenv_values  # noqa: PLC0415

    return dotenv_values(file).get("BFL_API_KEY")
