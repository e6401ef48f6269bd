"""`fluxwerk worker`: renders the tasks of a fleet."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from fluxwerk.cli.gateway import receiver
from fluxwerk.cli.painting import engine_options, open_engine
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.state.state import ServerState
    from fluxwerk.server.workers import BackgroundWorkers

# Seconds between two looks whether everything that had begun is done.
DRAIN_LOOK = 0.1


@click.command("worker")
@engine_options
@click.option("--models", metavar="NAME,...", help="Models to render; by default all that the engine serves.")
@click.option(
    "--database", required=True, metavar="URL", envvar="FLUXWERK_DATABASE", help="PostgreSQL that the fleet shares."
)
@click.option(
    "--storage", required=True, metavar="DIR|URL", envvar="FLUXWERK_STORAGE", help="Folder or bucket for the files."
)
@click.option(
    "--keep", type=click.FloatRange(min=1), default=3600.0, show_default=True, help="Time to keep images, in seconds."
)
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Shortest duration of a task, in seconds.")
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=60.0,
    help="Longest wait for running tasks after SIGTERM, in seconds; then other workers take them.",
)
@click.option(
    "--allow-network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Private network that webhooks may go to; may be repeated.",
)
@click.option(
    "--allow-http-webhook",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Host that may receive webhooks over plain http; may be repeated.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="upstream: the servers' --public-url; if it is https, the service sends its webhooks there.",
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port at which GET /metrics answers.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address of --metrics-port.")
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="text",
    show_default=True,
    help="Write warnings as JSON or as text.",
)
@click.option("--webhook-secret-header", is_flag=True, help="Also send the secret itself as X-Webhook-Secret.")
def command(
    engine: str,
    *,
    models: str | None,
    database: str,
    storage: str,
    keep: float,
    seconds: float,
    drain: float,
    networks: tuple[str, ...],
    hosts: tuple[str, ...],
    public_url: str | None,
    metrics_port: int | None,
    metrics_host: str,
    log_format: str,
    webhook_secret_header: bool,
    **settings: Any,
) -> None:
    """Render tasks that servers with the same database accept, on this machine or on another.

    \b
    fluxwerk serve --workers 0 --database postgresql://db/fluxwerk --storage s3://images
    fluxwerk worker --engine diffusers --weights ~/weights --database postgresql://db/fluxwerk --storage s3://images
    """  # noqa: D301
    from fluxwerk.cli.place import open_fleet  # noqa: PLC0415
    from fluxwerk.cli.server import check_packages, check_public_url, open_guard  # noqa: PLC0415
    from fluxwerk.server import requestlog  # noqa: PLC0415
    from fluxwerk.server.state.accounts import Accounts  # noqa: PLC0415
    from fluxwerk.server.state.state import ServerState  # noqa: PLC0415
    from fluxwerk.server.state.webhooks import WebhookPolicy  # noqa: PLC0415
    from fluxwerk.server.workers import BackgroundWorkers  # noqa: PLC0415

    # A worker answers no requests, and starts twice as fast without what does.
    check_packages("fluxwerk.server.workers")
    requestlog.configure(log_format)
    check_public_url(public_url)
    if public_url is not None and engine != "upstream":
        raise InvalidUsageError("", faults=[Fault("--public-url", public_url, "needs --engine upstream")])
    hosts = tuple(host.lower() for host in hosts)
    with closing(open_fleet(database, storage)) as store:
        painter = open_engine(store, engine, webhook=receiver(store, public_url), **settings)
        state = ServerState(
            Accounts(keep=keep, store=store),
            time.time,
            engine=engine,
            abilities=painter,
            pace=lambda _: seconds,
            policy=WebhookPolicy(frozenset(hosts), networks, webhook_secret_header),
        )
        wanted = None if models is None else read_models(models, state)
        workers = BackgroundWorkers(state, painter, open_guard(networks, hosts), wanted)
        with _metrics(state, metrics_host, metrics_port):
            asyncio.run(_work(workers, state, drain))


@contextmanager
def _metrics(state: ServerState, host: str, port: int | None) -> Generator[None]:
    """Answer `GET /metrics` in a thread, if there is a port for it."""
    from prometheus_client import start_http_server  # noqa: PLC0415

    from fluxwerk.server.handlers.metrics import registry_of  # noqa: PLC0415

    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host, registry_of(state))
    except OSError as trouble:
        hint = "choose another port"
        fault = Fault("--metrics-port", port, f"cannot listen on {host}:{port}: {trouble.strerror}", hint)
        raise InvalidUsageError("", faults=[fault]) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _work(workers: BackgroundWorkers, state: ServerState, drain: float) -> None:
    """Work until SIGTERM or Ctrl-C; what has begun may end before a second one, and before patience is over."""
    loop, ending, at_once = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def end() -> None:
        (at_once if ending.is_set() else ending).set()

    for kind in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(kind, end)
    async with workers.open():
        click.echo(f"fluxwerk renders {', '.join(workers.served)} with the engine {state.engine}.", err=True)
        await ending.wait()
        state.close()
        until = loop.time() + drain
        while workers.is_busy and not at_once.is_set() and loop.time() < until:  # noqa: ASYNC110  (three reasons)
            await asyncio.sleep(DRAIN_LOOK)


def read_models(models: str, state: ServerState) -> list[str]:
    """Read --models; raises `InvalidUsageError` for one that the engine does not serve, for its tasks would wait."""
    from fluxwerk import catalog  # noqa: PLC0415

    wanted = [catalog.get_model(name.strip()).name for name in models.split(",")]
    served = {model.name for model in state.models.values() if state.abilities.facts(model) is not None}
    missing = ", ".join(name for name in wanted if name not in served)
    if missing:
        wrong = f"names {missing}, which the engine {state.engine} does not serve"
        hint = f"it serves {', '.join(sorted(served))}"
        raise InvalidUsageError("", faults=[Fault("--models", models, wrong, hint)])
    return wanted
