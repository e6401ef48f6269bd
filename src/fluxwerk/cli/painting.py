"""The engines as `fluxwerk serve` and `fluxwerk worker` name them, with the options that each of them reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxwerk.cli.local import LocalSettings, local_engine, local_options
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.client.session import WebhookListener
    from fluxwerk.engines import LiveEngine
    from fluxwerk.server.state.store import Store

F = TypeVar("F", bound=Callable[..., Any])
UPSTREAM = (
    click.option(
        "--upstream",
        metavar="URL",
        help="upstream: address of the service that makes the images, https://api.bfl.ai by default.",
    ),
    click.option(
        "--upstream-key-file",
        "upstream_key",
        type=click.Path(dir_okay=False),
        help="upstream: file of mode 600 with the service's key; without one the key is BFL_API_KEY.",
    ),
    click.option(
        "--delivery-host",
        "delivery_hosts",
        multiple=True,
        metavar="HOST",
        help="upstream: host that may deliver images by plain http, if --upstream is plain http; may be repeated.",
    ),
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["offline", "diffusers", "upstream"]),
    default="offline",
    show_default=True,
    help="Image engine.",
)


def engine_options(command: F) -> F:
    """Give a command the options of the engines."""
    command = reduce(lambda made, option: option(made), reversed(UPSTREAM), command)
    return ENGINE(local_options(command))


def open_engine(
    store: Store,
    engine: str,
    *,
    upstream: str | None,
    upstream_key: str | None,
    delivery_hosts: tuple[str, ...],
    webhook: WebhookListener | None = None,
    **local: Any,
) -> LiveEngine:
    """Create the engine that the options describe; raises `InvalidUsageError` for one that another engine reads."""
    settings = LocalSettings(**local)
    if engine != "diffusers":
        _refuse_all(settings.given(), "needs --engine diffusers")
    if engine != "upstream":
        _refuse_all(_remote(upstream, upstream_key, delivery_hosts), "needs --engine upstream")
    match engine:
        case "diffusers":
            return local_engine(settings)
        case "upstream":
            from fluxwerk.cli.gateway import upstream_engine  # noqa: PLC0415

            return upstream_engine(store, upstream, upstream_key, delivery_hosts, webhook)
        case _:
            from fluxwerk.engines.offline import OfflineEngine  # noqa: PLC0415
            from fluxwerk.engines.threads import live  # noqa: PLC0415

            return live(OfflineEngine())


def refuse_engine(
    *, chosen: bool, upstream: str | None, upstream_key: str | None, delivery_hosts: tuple[str, ...], **local: Any
) -> None:
    """Refuse an engine that was `chosen`, and the options of any, where none runs; raises `InvalidUsageError`."""
    given = {"engine": chosen, **_remote(upstream, upstream_key, delivery_hosts), **LocalSettings(**local).given()}
    _refuse_all(given, "needs --workers 1", "with --workers 0 it is an option of fluxwerk worker")


def _remote(upstream: str | None, key: str | None, hosts: tuple[str, ...]) -> dict[str, object]:
    return {"upstream": upstream, "upstream-key-file": key, "delivery-host": hosts}


def _refuse_all(given: Mapping[str, object], need: str, hint: str = "") -> None:
    """Refuse options that nobody here reads."""
    faults = [Fault(f"--{name}", None, need, hint) for name, value in given.items() if value not in (None, False, ())]
    if faults:
        raise InvalidUsageError("", faults=faults)
