"""`fluxwerk webhook`: receive, verify and sign webhooks by hand."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.cli.server import cannot_listen
from fluxwerk.cli.usage import Group
from fluxwerk.errors import FluxwerkError
from fluxwerk.protocol import trust
from fluxwerk.protocol.webhook import LARGEST_WEBHOOK, SIGNATURE, check, read, sign, verify
from fluxwerk.types import Json

# Headers that are not forwarded: they belong to one connection, or the HTTP library sets them.
HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "user-agent"})
FORWARD_SECONDS = 30.0
OK, BAD_GATEWAY = 200, 502

secret_option = click.option(
    "--secret",
    envvar="BFL_WEBHOOK_SECRET",
    required=True,
    help="The webhook_secret of the submit; set BFL_WEBHOOK_SECRET to hide it from process lists.",
)


@click.group("webhook", cls=Group)
def command() -> None:
    """Receive and verify webhooks by hand, or sign one to test your own receiver.

    \b
    export BFL_WEBHOOK_SECRET=a-secret
    fluxwerk webhook listen --port 9000
    curl -H "$(fluxwerk webhook sign hook.json)" --data-binary @hook.json http://127.0.0.1:9000
    """  # noqa: D301


@command.command("sign")
@click.argument("file", type=click.File("rb", lazy=True))
@secret_option
def sign_file(file: Any, secret: str) -> None:
    """Print the signature header of FILE; - reads from stdin."""
    check(secret)
    click.echo(f"{SIGNATURE}: {sign(file.read(), secret)}")


@command.command("listen")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9000,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@secret_option
@click.option("--accept-secret-header", is_flag=True, help="Without a signature, accept a matching X-Webhook-Secret.")
@click.option(
    "--forward", metavar="URL", help="Forward every verified webhook unchanged to this URL, and show the response."
)
@click.option(
    "--ledger",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ledger whose jobs in doubt are settled by webhooks that carry their token.",
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after this number of webhooks.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Save each body in this folder.")
@json_option
def listen(host: str, port: int, *, count: int | None, as_json: bool, **how: Any) -> None:
    """Show and verify every webhook that arrives, until Ctrl-C."""
    check(how["secret"])
    try:
        server = _Server((host, port), _Handler)
    except OSError as trouble:
        raise cannot_listen("--port", host, port, trouble) from None
    server.how, server.as_json = how, as_json
    with server:
        click.echo(f"Listening for webhooks at http://{host}:{server.server_port}; Ctrl-C ends.", err=True)
        try:
            while count is None or server.received < count:
                server.handle_request()
        except KeyboardInterrupt:
            click.echo(f"{server.received} webhook{'' if server.received == 1 else 's'} received.", err=True)


class _Server(HTTPServer):
    """Handles one webhook at a time, so that the lines of two do not mix."""

    how: dict[str, Any]
    as_json: bool
    received = 0

    def show(self, facts: dict[str, Json]) -> None:
        self.received += 1
        if self.as_json:
            put_json(facts)
            return
        click.echo("  ".join(f"{name}: {_shown(value)}" for name, value in facts.items() if value not in (None, "")))


class _Handler(BaseHTTPRequestHandler):
    """Reads one webhook, verifies it, forwards it, and answers."""

    # Seconds for each read, so that a silent sender does not block the others.
    timeout = 10

    @property
    def _owner(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def do_POST(self) -> None:
        """Handle one webhook."""
        length = self.headers.get("content-length", "")
        if (
            not (length.isascii() and length.isdigit())
            or len(length) > len(str(LARGEST_WEBHOOK))
            or int(length) > LARGEST_WEBHOOK
        ):
            self._end(413 if length else 411, "the body must have a Content-Length of at most 256 KiB")
            return
        body, how = self.rfile.read(int(length)), self._owner.how
        facts, status = _verify(body, dict(self.headers), how)
        if how["save"]:
            facts["saved"] = _save(body, how["save"], self._owner.received + 1)
        if how["ledger"] and status == OK:
            facts["settled"] = _settle(how["ledger"], self.path, str(facts["task"]))
        if how["forward"] and status == OK:
            facts["forwarded"], status = _forward(how["forward"], body, dict(self.headers))
        self._owner.show(facts)
        self._end(status, str(facts["verdict"]))

    def _end(self, status: int, words: str) -> None:
        body = words.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's signature)
        """Log nothing: `show` prints what arrives."""


def _verify(body: bytes, headers: dict[str, str], how: dict[str, Any]) -> tuple[dict[str, Json], int]:
    facts: dict[str, Json] = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "bytes": len(body)}
    try:
        verify(body, headers, how["secret"], accept_secret_header=how["accept_secret_header"])
    except FluxwerkError as fault:
        return facts | {"verdict": "not verified", "reason": str(fault)}, 401
    try:
        status = read(body)
    except FluxwerkError as fault:
        return facts | {"verdict": "verified, but unreadable", "reason": str(fault)}, 400
    link = trust.quote(status.url) if status.url else None
    shown = {"task": status.task.id, "status": status.word, "details": status.details, "image": link}
    return facts | {"verdict": "verified"} | shown, OK


def _save(body: bytes, folder: Path, number: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"webhook-{number}.json"
    file.write_bytes(body)
    return str(file)


def _settle(file: Path, path: str, task: str) -> str | None:
    """Record in the ledger which task a job in doubt became; return the job if that settled it."""
    from fluxwerk.ledger.callback import read_token  # noqa: PLC0415
    from fluxwerk.ledger.ledger import Ledger  # noqa: PLC0415  (slow to import, and only needed with --ledger)

    token = read_token(path)
    if token is None:
        return None
    with Ledger.open(file) as ledger:
        job = ledger.accept_callback(token, task)
    return f"job {job.id}" if job else None


def _forward(url: str, body: bytes, headers: dict[str, str]) -> tuple[str, int]:
    import httpx2  # noqa: PLC0415  (slow to import, and only needed with --forward)

    kept = {name: value for name, value in headers.items() if name.lower() not in HOP}
    try:
        answer = httpx2.post(url, content=body, headers=kept, timeout=FORWARD_SECONDS, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL) as trouble:
        return f"failed ({type(trouble).__name__})", BAD_GATEWAY
    return f"answered {answer.status_code} after {answer.elapsed.total_seconds():.3f} s", answer.status_code


def _shown(value: Json) -> str:
    return value if isinstance(value, str) and value.isprintable() else repr(value)
