"""`fluxwerk serve`: the same API on this machine."""

from __future__ import annotations

import socket
import time
from decimal import Decimal

import click

from fluxwerk.errors import Fault, Misused

PACKAGES = "pip install 'fluxwerk[server]'"


@click.command("serve")
@click.option("--engine", type=click.Choice(["offline"]), default="offline", show_default=True, help="Who paints.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--key", "keys", multiple=True, envvar="FLUXWERK_KEYS", help="An x-key to accept; any if none is given.")
@click.option("--credits", "credit", default="1000000", show_default=True, help="What each account starts with.")
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="How long a task takes at least.")
@click.option(
    "--allow-network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="A private network from which input images may be fetched, such as 127.0.0.0/8.",
)
def command(
    engine: str,
    host: str,
    port: int,
    keys: tuple[str, ...],
    credit: str,
    seconds: float,
    networks: tuple[str, ...],
) -> None:
    r"""Run the BFL API on this machine, for development and tests.

    \b
    fluxwerk serve --port 8000
    fluxwerk generate "A red fox" --base-url http://127.0.0.1:8000 -o fox.png
    """
    try:
        import uvicorn  # noqa: PLC0415

        from fluxwerk.engines.offline import Offline  # noqa: PLC0415
        from fluxwerk.server.app import build  # noqa: PLC0415
        from fluxwerk.server.books import Books  # noqa: PLC0415
        from fluxwerk.server.fetch import Guard  # noqa: PLC0415
        from fluxwerk.server.service import Service  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise Misused(f"The server needs one more package ({missing.name}): {PACKAGES}") from None
    painter = Offline()
    service = Service(Books(keys, _credit(credit)), time.time, engine=engine, pace=lambda _: seconds)
    try:
        guard = Guard(networks)
    except ValueError as fault:
        raise Misused("", faults=[Fault("--allow-network", ", ".join(networks), f"{fault}; try 127.0.0.0/8")]) from None
    app = build(service, painter, guard)
    with _listen(host, port) as listening:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        who = f"{len(keys)} keys are accepted" if keys else "any x-key is accepted"
        click.echo(
            f"fluxwerk serves the BFL API at {address} (engine {engine}, {who}); docs at {address}/docs", err=True
        )
        if networks:
            click.echo(f"Input images may be fetched from {', '.join(networks)}.", err=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
        uvicorn.Server(config).run([listening])


def _credit(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise Misused("", faults=[Fault("--credits", text, "must be a number")]) from None


def _listen(host: str, port: int) -> socket.socket:
    from fluxwerk.server.loopback import listen  # noqa: PLC0415

    try:
        return listen(host, port)
    except OSError as trouble:
        hint = Fault("--port", port, f"{host}:{port} cannot be listened at: {trouble.strerror}", "try another, or 0")
        raise Misused("", faults=[hint]) from None
