"""`fluxwerk conform`: compare a server of the API with what is documented, and with our own server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import click

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model
from fluxwerk.cli.connection import Connection, connected, connection_options
from fluxwerk.cli.console import money, put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.client.client import Client
from fluxwerk.conform import report as reports
from fluxwerk.conform import suite
from fluxwerk.conform.asker import Asker
from fluxwerk.conform.check import ConformCheck
from fluxwerk.conform.receiver import receiving
from fluxwerk.conform.suite import CheckResult, Mark
from fluxwerk.drive import WALL
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.server.errors import Dialect
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.storage import save
from fluxwerk.types import Json
from fluxwerk.version import VERSION

GROUP_NAMES = [group.group for group in suite.GROUPS]
OWN_KEY = "a-key-of-our-own-server"
HOME, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  (only with --webhook)
# Our own server sells nothing.
NO_CAP = Decimal(1_000_000)
MAGIC_PROMPT = "fluxwerk:request-moderated"


@click.command("conform")
@click.option("--only", multiple=True, type=click.Choice(GROUP_NAMES), help="Only this group; may be repeated.")
@click.option("--model", default="flux-2-klein-4b", show_default=True, help="The model whose images are bought.")
@click.option("--max-cost", type=float, default=25.0, show_default=True, help="Most credits that may be spent.")
@click.option("--moderated-prompt", default="", help="A prompt that the service stops, to see what that costs.")
@click.option("--webhook", metavar="URL", default="", help="Public address at which --webhook-port can be reached.")
@click.option("--webhook-port", type=click.IntRange(0, 65535), default=0, help="Port on which webhooks are received.")
@click.option("--dialect", type=click.Choice(["live", "guide"]), default="live", show_default=True,
              help="Dialect of our own server that answers are compared with.")  # fmt: skip
@click.option("--report", "markdown", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.md",
              help="Also write a report without secrets, to attach to an issue.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask before something is bought.")
@json_option
@connection_options
def command(
    connection: Connection,
    *,
    only: tuple[str, ...],
    model: str,
    max_cost: float,
    moderated_prompt: str,
    webhook: str,
    webhook_port: int,
    dialect: Dialect,
    markdown: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask a server some sixty questions, and mark where its answers differ from those of our own server.

    \b
    fluxwerk conform --base-url http://127.0.0.1:8000
    fluxwerk conform --only refusals --only paths --report report.md

    Images of 64 × 64 are bought, never for more than --max-cost: a submit beyond it does not leave. The exit code is 1
    if an answer deviates from what is documented.
    """  # noqa: D301
    row, checks, cap = catalog.get_model(model), suite.select(only), Decimal(str(max_cost))
    _confirm(checks, row, cap, agreed=yes or connection.offline, as_json=as_json)
    ours = _ask_our_own(checks, row, dialect, webhook=bool(webhook))
    # Webhooks come from outside only where their public address is given.
    with receiving(EVERYWHERE if webhook else HOME, webhook_port) as (_, calls), connected(connection) as client:
        asker = Asker(client, row, cap, WALL, webhook=webhook, calls=calls, moderated_prompt=moderated_prompt)
        results = suite.compare(suite.run(checks, asker, _progress(as_json=as_json)), ours)
        facts = _facts(client, row, dialect, asker.spent)
    written = reports.to_json(results, facts)
    if markdown:
        save(reports.to_markdown(written).encode(), markdown)
    if as_json:
        put_json(written)
    else:
        _show(results, asker.spent)
    sys.exit(any(result.mark is Mark.DEVIATES for result in results))


def _confirm(checks: list[ConformCheck], model: Model, cap: Decimal, *, agreed: bool, as_json: bool) -> None:
    most = min(suite.estimate(checks, model), cap)
    text = f"{len(checks)} questions with {model.name}: at most {money(most)} (cap {money(cap)})."
    if not as_json:
        click.echo(text, err=True)
    if agreed or not most:
        return
    if as_json or not sys.stdin.isatty():
        hint = "without a terminal nothing is bought unless you agree"
        raise InvalidUsageError(f"{text} ", faults=[Fault("--yes", None, "is needed", hint)])
    click.confirm("Go on?", err=True, abort=True)


def _ask_our_own(checks: list[ConformCheck], model: Model, dialect: Dialect, *, webhook: bool) -> list[CheckResult]:
    """Ask a server of our own that plays the live service."""
    with (
        loopback(dialect=dialect, accounts=Accounts([OWN_KEY])) as base,
        receiving(HOME, 0) as (port, calls),
        Client(OWN_KEY, base_url=base) as client,
    ):
        address = f"http://{HOME}:{port}/hook" if webhook else ""
        asker = Asker(client, model, NO_CAP, WALL, webhook=address, calls=calls, moderated_prompt=MAGIC_PROMPT)
        return suite.run(checks, asker)


def _facts(client: Client, model: Model, dialect: Dialect, spent: Decimal) -> dict[str, Json]:
    parts = urlsplit(client.access.base)
    return {
        "server": f"{parts.scheme}://{parts.hostname}",
        "model": model.name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": VERSION,
        "dialect": dialect,
        "spent": spent,
    }


def _progress(*, as_json: bool) -> Callable[[CheckResult], None]:
    def show(result: CheckResult) -> None:
        if not as_json:
            click.echo(f"\r{result.check.group:9} {result.check.name:32}", nl=False, err=True)

    return show if sys.stderr.isatty() else lambda _: None


def _show(results: list[CheckResult], spent: Decimal) -> None:
    for result in results:
        click.echo(reports.line_of(result))
    click.echo(f"{reports.summary(results)} {money(spent)} spent.")
