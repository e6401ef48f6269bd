"""`fluxwerk webhook`: see what comes in, and sign what goes out to try a receiver."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click

from fluxwerk.cli.console import put_json
from fluxwerk.cli.making import json_option
from fluxwerk.errors import Fault, FluxwerkError, InvalidUsageError
from fluxwerk.protocol import trust
from fluxwerk.protocol.webhook import LARGEST, SIGNATURE, check, read, sign, verify
from fluxwerk.types import Json

# Not sent on: they belong to one connection, or are said anew by the HTTP library.
HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "user-agent"})
FORWARD_SECONDS = 30.0
OK, LOST = 200, 502

secret_option = click.option(
    "--secret",
    envvar="BFL_WEBHOOK_SECRET",
    required=True,
    help="What the submit said as webhook_secret; better in BFL_WEBHOOK_SECRET, where no list of processes shows it.",
)


@click.group("webhook")
def command() -> None:
    """Show and verify webhooks by hand, or sign one to try a receiver of your own.

    \b
    export BFL_WEBHOOK_SECRET=a-secret
    fluxwerk webhook listen --port 9000
    curl -H "$(fluxwerk webhook sign hook.json)" --data-binary @hook.json http://127.0.0.1:9000
    """  # noqa: D301


@command.command("sign")
@click.argument("file", type=click.File("rb"))
@secret_option
def sign_file(file: Any, secret: str) -> None:
    """Print the header that signs FILE, byte for byte; - reads the standard input."""
    check(secret)
    click.echo(f"{SIGNATURE}: {sign(file.read(), secret)}")


@command.command("listen")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="0 takes a free one.")
@secret_option
@click.option("--accept-secret-header", is_flag=True, help="Take an equal X-Webhook-Secret where no signature came.")
@click.option("--forward", metavar="URL", help="Send every verified webhook on, unchanged, and show the answer.")
@click.option(
    "--ledger",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settle what is in doubt in this ledger: a webhook with a job's own token says which task it became.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many webhooks.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Keep each body in this folder.")
@json_option
def listen(host: str, port: int, *, count: int | None, as_json: bool, **how: Any) -> None:
    """Show every webhook that arrives and whether it is proven, until Ctrl-C."""
    check(how["secret"])
    try:
        server = _Server((host, port), _Take)
    except OSError as trouble:
        hint = Fault("--port", port, f"{host}:{port} cannot be listened at: {trouble.strerror}", "try another, or 0")
        raise InvalidUsageError("", faults=[hint]) from None
    server.how, server.as_json = how, as_json
    with server:
        click.echo(f"Listening for webhooks at http://{host}:{server.server_port}; Ctrl-C ends.", err=True)
        try:
            while count is None or server.heard < count:
                server.handle_request()
        except KeyboardInterrupt:
            click.echo(f"{server.heard} webhooks were heard.", err=True)


class _Server(HTTPServer):
    """One webhook at a time, in the order of their arrival, so that the lines do not mix."""

    how: dict[str, Any]
    as_json: bool
    heard = 0

    def show(self, facts: dict[str, Json]) -> None:
        self.heard += 1
        if self.as_json:
            put_json(facts)
            return
        click.echo("  ".join(f"{name}: {_shown(value)}" for name, value in facts.items() if value not in (None, "")))


class _Take(BaseHTTPRequestHandler):
    """Reads one webhook, judges it, sends it on, and answers."""

    # Seconds for each read, so that a silent sender does not hold the others up.
    timeout = 10

    @property
    def _desk(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def do_POST(self) -> None:
        """Take a webhook."""
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > len(str(LARGEST)) or int(length) > LARGEST:
            self._end(413 if length else 411, "a body of known length, of at most 256 KiB, is needed")
            return
        body, how = self.rfile.read(int(length)), self._desk.how
        facts, status = _judge(body, dict(self.headers), how)
        if how["save"]:
            facts["saved"] = _save(body, how["save"], self._desk.heard + 1)
        if how["ledger"] and status == OK:
            facts["settled"] = _accept_callback(how["ledger"], self.path, str(facts["task"]))
        if how["forward"] and status == OK:
            facts["forwarded"], status = _forward(how["forward"], body, dict(self.headers))
        self._desk.show(facts)
        self._end(status, str(facts["verdict"]))

    def _end(self, status: int, words: str) -> None:
        body = words.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's signature)
        """Say nothing: what there is to say is said by `show`."""


def _judge(body: bytes, headers: dict[str, str], how: dict[str, Any]) -> tuple[dict[str, Json], int]:
    facts: dict[str, Json] = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "bytes": len(body)}
    try:
        verify(body, headers, how["secret"], accept_secret_header=how["accept_secret_header"])
    except FluxwerkError as fault:
        return facts | {"verdict": "not proven", "reason": str(fault)}, 401
    try:
        status = read(body)
    except FluxwerkError as fault:
        return facts | {"verdict": "proven, but unreadable", "reason": str(fault)}, 400
    link = trust.redact(status.url) if status.url else None
    said = {"task": status.task.id, "status": status.word, "details": status.details, "image": link}
    return facts | {"verdict": "proven"} | said, OK


def _save(body: bytes, folder: Path, number: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"webhook-{number}.json"
    file.write_bytes(body)
    return str(file)


def _accept_callback(file: Path, path: str, task: str) -> str | None:
    """Tell the ledger which task a job in doubt became; name the job if that settled it."""
    from fluxwerk.ledger.callback import read_token  # noqa: PLC0415
    from fluxwerk.ledger.ledger import Ledger  # noqa: PLC0415  (only those who keep one pay)

    token = read_token(path)
    if token is None:
        return None
    with Ledger.open(file) as ledger:
        job = ledger.accept_callback(token, task)
    return f"job {job.id}" if job else None


def _forward(url: str, body: bytes, headers: dict[str, str]) -> tuple[str, int]:
    import httpx2  # noqa: PLC0415  (a tenth of a second that only those who forward pay)

    kept = {name: value for name, value in headers.items() if name.lower() not in HOP}
    try:
        answer = httpx2.post(url, content=body, headers=kept, timeout=FORWARD_SECONDS, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL) as trouble:
        return f"lost ({type(trouble).__name__})", LOST
    return f"answered {answer.status_code} after {answer.elapsed.total_seconds():.3f} s", answer.status_code


def _shown(value: Json) -> str:
    return value if isinstance(value, str) and value.isprintable() else repr(value)
