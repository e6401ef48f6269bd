"""`fluxwerk mcp`: images for assistants."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from fluxwerk.cli.connection import Connection, connected_async, connection_options
from fluxwerk.cli.number import credit
from fluxwerk.client.proxy import is_loopback
from fluxwerk.errors import Fault, InvalidUsageError

PACKAGES = "pip install 'fluxwerk[mcp]'"
TOKEN = "FLUXWERK_MCP_TOKEN"  # noqa: S105  (the name of a variable)


@click.command("mcp")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for the images and their ledger."
)
@click.option("--max-cost", type=credit, metavar="CREDITS", help="The most that one session may spend.")
@click.option("--max-cost-day", type=credit, metavar="CREDITS", help="The most that all sessions may spend in a day.")
@click.option(
    "--confirm-above",
    type=credit,
    default="20",
    show_default=True,
    metavar="CREDITS",
    help="Ask a person before a call that costs more.",
)
@click.option(
    "--read",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose images may be sent, beside --output and the client's roots; may be repeated.",
)
@click.option("--http", is_flag=True, help="Serve streamable HTTP instead of stdio.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="With --http: port to listen on."
)
@connection_options
def command(
    connection: Connection,
    output: Path | None,
    max_cost: Decimal | None,
    max_cost_day: Decimal | None,
    confirm_above: Decimal,
    folders: tuple[Path, ...],
    *,
    http: bool,
    host: str,
    port: int,
) -> None:
    """Serve image tools to an assistant over MCP: generate, edit, fill, price, history and more.

    \b
    fluxwerk mcp --offline
    fluxwerk mcp --max-cost 100 --max-cost-day 500 -o ~/Pictures/flux
    fluxwerk mcp --http --port 8001
    """  # noqa: D301
    try:
        from fluxwerk.mcp.maker import ImageMaker  # noqa: PLC0415
        from fluxwerk.mcp.server import build  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise InvalidUsageError(f"MCP needs the package {missing.name}. Install it: {PACKAGES}") from None
    from fluxwerk.mcp.caps import SpendingCaps  # noqa: PLC0415

    token = _token(host) if http else None
    caps = SpendingCaps(max_cost, max_cost_day, confirm_above)
    with connected_async(connection) as client, suppress(KeyboardInterrupt):
        maker = ImageMaker(client, output or _pictures(), caps=caps, read=folders, offline=connection.offline)
        server = build(maker)
        if http:
            asyncio.run(_serve(server, host, port, token))
        else:
            asyncio.run(server.run_stdio_async())


def _pictures() -> Path:
    from platformdirs import user_pictures_path  # noqa: PLC0415

    return user_pictures_path() / "fluxwerk"


def _token(host: str) -> str | None:
    """Read the token that a client has to send; without one nobody but this machine may spend."""
    token = os.environ.get(TOKEN)
    if not token and not is_loopback(host):
        hint = f"set {TOKEN} to a long random text, which clients send as a bearer token"
        raise InvalidUsageError("", faults=[Fault("--host", host, "lets others spend your credits", hint)])
    return token or None


async def _serve(server: Any, host: str, port: int, token: str | None) -> None:
    import uvicorn  # noqa: PLC0415

    from fluxwerk.mcp.server import TokenCheck  # noqa: PLC0415
    from fluxwerk.server.loopback import listen  # noqa: PLC0415

    app = server.streamable_http_app(host=host)
    config = uvicorn.Config(TokenCheck(app, token) if token else app, log_level="warning", timeout_graceful_shutdown=5)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"fluxwerk serves MCP at http://{shown}:{listening.getsockname()[1]}/mcp", err=True)
        await uvicorn.Server(config).serve([listening])
