"""`fluxwerk serve`: the BFL API on this machine."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fluxwerk.cli.gateway import RECEIVER_PATH, receiver
from fluxwerk.cli.painting import engine_options, open_engine, refuse_engine
from fluxwerk.cli.place import open_place, overruled
from fluxwerk.cli.server import (
    check_packages,
    check_public_url,
    listen_at,
    load_faults,
    open_accounts,
    open_guard,
    read_alias,
)
from fluxwerk.client.proxy import is_loopback
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    import uvicorn

    from fluxwerk.server.state.state import ServerState


@click.command("serve")
@engine_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@click.option(
    "--key", "keys", multiple=True, envvar="FLUXWERK_KEYS", help="API key to accept; without one any key is accepted."
)
@click.option(
    "--keys", "keyring", type=click.Path(dir_okay=False), help="File of keys, created by `fluxwerk keys add`."
)
@click.option(
    "--credits", "credit", default="1000000", show_default=True, help="Balance of each --key at the start, in credits."
)
@click.option(
    "--state", type=click.Path(file_okay=False), help="Folder for tasks and images, so that they survive a restart."
)
@click.option(
    "--database",
    metavar="URL",
    envvar="FLUXWERK_DATABASE",
    help="PostgreSQL for tasks that many servers and workers share, in place of --state.",
)
@click.option(
    "--storage",
    metavar="DIR|URL",
    envvar="FLUXWERK_STORAGE",
    help="Folder or bucket for images; with --database every process has to reach it.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 1),
    default=1,
    show_default=True,
    help="With --database: 0 leaves rendering to `fluxwerk worker`.",
)
@click.option(
    "--keep", type=click.FloatRange(min=1), default=3600.0, show_default=True, help="Time to keep images, in seconds."
)
@click.option(
    "--deliver",
    type=click.Choice(["stream", "redirect"]),
    default="stream",
    show_default=True,
    help="Send an image itself, or send its link on to the bucket that has it.",
)
@click.option(
    "--cache", is_flag=True, help="Answer a request with a seed that was answered before from storage, for nothing."
)
@click.option(
    "--queue",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Tasks that each key may have waiting beyond its slots; without a queue they are refused with 429.",
)
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Shortest duration of a task, in seconds.")
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=60.0,
    help="Longest wait for running tasks after SIGTERM, in seconds.",
)
@click.option(
    "--dialect",
    type=click.Choice(["live", "guide"]),
    default="live",
    show_default=True,
    help="Errors of the live service (403, 422) or of its guide (401, 400).",
)
@click.option(
    "--strict", is_flag=True, help="Refuse unknown fields, surplus references and sizes off the grid with 422."
)
@click.option(
    "--max-prompt",
    type=click.IntRange(min=1),
    default=32 * 1024,
    show_default=True,
    help="Longest prompt that is taken, in bytes.",
)
@click.option("--trouble", type=click.Path(dir_okay=False), help="TOML file of faults to inject, for tests.")
@click.option(
    "--magic/--no-magic",
    default=None,
    help="Let prompts such as fluxwerk:error choose how a task ends; off by default with --engine upstream and "
    "with --database, else on.",
)
@click.option(
    "--allow-network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Private network that input images may come from and webhooks may go to; may be repeated.",
)
@click.option(
    "--allow-http-webhook",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Host that may receive webhooks over plain http; may be repeated.",
)
@click.option(
    "--allowed-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Host name to answer to, beside loopback names; may be repeated.",
)
@click.option("--public-url", metavar="URL", help="What links are made of: polls, images and webhooks.")
@click.option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS|CIDR",
    help="Proxy whose X-Forwarded-For and X-Forwarded-Proto count; may be repeated.",
)
@click.option(
    "--idempotency/--no-idempotency",
    default=True,
    show_default=True,
    help="Take a submit that is repeated with its Idempotency-Key for the same one; the live service does not.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    help="Log one line for each request, as JSON or as text; without it only warnings are logged.",
)
@click.option("--log-prompts", is_flag=True, help="Put prompts into the lines of --log-format.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME=MODEL",
    help="Another name of a model, for applications that know only their own; may be repeated.",
)
@click.option("--webhook-secret-header", is_flag=True, help="Also send the secret itself as X-Webhook-Secret.")
def command(
    engine: str,
    *,
    host: str,
    port: int,
    keys: tuple[str, ...],
    keyring: str | None,
    credit: str,
    state: str | None,
    database: str | None,
    storage: str | None,
    workers: int,
    keep: float,
    deliver: str,
    cache: bool,
    queue: int,
    seconds: float,
    drain: float,
    dialect: str,
    strict: bool,
    max_prompt: int,
    trouble: str | None,
    magic: bool | None,
    networks: tuple[str, ...],
    hosts: tuple[str, ...],
    names: tuple[str, ...],
    public_url: str | None,
    proxies: tuple[str, ...],
    idempotency: bool,
    log_format: str | None,
    log_prompts: bool,
    aliases: tuple[str, ...],
    webhook_secret_header: bool,
    **settings: Any,
) -> None:
    """Run the BFL API on this machine: placeholders for development, open weights on your GPU, or a gateway.

    \b
    fluxwerk serve --port 8000
    fluxwerk generate "A red fox" --base-url http://127.0.0.1:8000 -o fox.png
    fluxwerk serve --engine diffusers --weights ~/weights/FLUX.2-klein-4B
    fluxwerk serve --engine upstream --keys keys.json
    """  # noqa: D301
    check_packages()
    from fluxwerk.server.app import build  # noqa: PLC0415
    from fluxwerk.server.requestlog import RequestLog  # noqa: PLC0415
    from fluxwerk.server.state.state import ServerState  # noqa: PLC0415
    from fluxwerk.server.state.webhooks import WebhookPolicy  # noqa: PLC0415

    if overruled("database", "state"):
        database = None
        # The storage of the environment is that of the database.
        storage = None if overruled("storage", "state") else storage
    if overruled("keys", "keyring"):
        keys = ()
    check_public_url(public_url)
    if not workers:
        _check_without_engine(database, settings)
    known_as = dict(map(read_alias, aliases))
    store = open_place(state, database, storage)
    # What only answers for a fleet may receive webhooks for its workers, whatever they are.
    hook = receiver(store, public_url) if engine == "upstream" or not workers else None
    painter = open_engine(store, engine, webhook=hook, **settings) if workers else None
    _log(log_format, prompts=log_prompts)
    hosts = tuple(host.lower() for host in hosts)  # as the host of every URL is read
    guard, script = open_guard(networks, hosts), load_faults(trouble)
    serving = ServerState(
        open_accounts(keys, keyring, credit, keep, store, queue),
        time.time,
        engine=engine if workers else None,
        abilities=painter,
        pace=lambda _: seconds,
        dialect="guide" if dialect == "guide" else "live",
        policy=WebhookPolicy(frozenset(hosts), networks, webhook_secret_header),
        trouble=script,
        # In a fleet other processes render, and what they render may be paid.
        magic=(database is None and engine != "upstream") if magic is None else magic,
        strict=strict,
        longest_prompt=max_prompt,
        keeps_keys=idempotency and may_promise(engine, state or database),
        redirects=deliver == "redirect",
        caches=cache,
    )
    application = build(serving, painter, guard, aliases=known_as)
    if hook:
        application.mount(RECEIVER_PATH, hook)
    app = RequestLog(_checked(application, host, names, public_url), prompts=log_prompts)
    config = _config(app, proxies, breakable=bool(script.rules))
    with listen_at(host, port) as listening, suppress(KeyboardInterrupt), closing(store):
        who = "only known keys are accepted" if keys or keyring else "any x-key is accepted"
        painting = f"engine {engine}" if workers else "fluxwerk worker renders"
        _announce(_address(host, listening), f"{painting}, {who}", networks, len(script.rules))
        _run(config, serving, drain, listening)


def _check_without_engine(database: str | None, settings: Mapping[str, Any]) -> None:
    """Refuse a server without an engine that nobody renders for, and options of an engine that it does not have."""
    if database is None:
        hint = "workers find their tasks there; without it, let this server render with --workers 1"
        raise InvalidUsageError("", faults=[Fault("--workers", 0, "needs --database", hint)])
    source = click.get_current_context().get_parameter_source("engine")
    refuse_engine(chosen=source is not ParameterSource.DEFAULT, **settings)


def may_promise(engine: str, kept: str | None) -> bool:
    """Whether a key outlives what was paid for under it: a gateway may forget its tasks, and has bought them."""
    return engine != "upstream" or kept is not None


def _log(form: str | None, *, prompts: bool) -> None:
    from fluxwerk.server import requestlog  # noqa: PLC0415

    if prompts and form is None:
        raise InvalidUsageError(
            "", faults=[Fault("--log-prompts", None, "needs --log-format", "add --log-format json")]
        )
    requestlog.configure(form)


def _checked(app: Any, host: str, names: tuple[str, ...], public_url: str | None) -> Any:
    """Let the application answer to known hosts; a bind beyond loopback answers to all, unless some are named."""
    from fluxwerk.server.hosts import HostCheck  # noqa: PLC0415

    return HostCheck(app, names, public_url=public_url, open_=not (names or is_loopback(host)))


def _config(app: Any, proxies: tuple[str, ...], *, breakable: bool) -> uvicorn.Config:
    from fluxwerk.server.loopback import config_of  # noqa: PLC0415

    return config_of(app, breakable=breakable, proxies=proxies, log_level="warning", timeout_graceful_shutdown=10)


def _address(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def _announce(address: str, what: str, networks: tuple[str, ...], rules: int) -> None:
    click.echo(f"fluxwerk serves the BFL API at {address} ({what}); docs at {address}/docs", err=True)
    if networks:
        click.echo(f"Images may be fetched from, and webhooks sent to, {', '.join(networks)}.", err=True)
    if rules:
        click.echo(f"Trouble on demand: {rules} rule{'' if rules == 1 else 's'}.", err=True)


def _run(config: uvicorn.Config, state: ServerState, drain: float, listening: socket.socket) -> None:
    from fluxwerk.server.drain import Draining  # noqa: PLC0415

    # What is loaded by now stays: a full collection of garbage would look through it while requests wait.
    gc.collect()
    gc.freeze()
    Draining(config, state, drain).run([listening])
