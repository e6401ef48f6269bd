"""The checks of `fluxwerk doctor`: one function each, which says what it found and what to do."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from fluxwerk.cli.batch.place import LEDGER_SUFFIX
from fluxwerk.cli.connection import Connection, connected
from fluxwerk.cli.console import money
from fluxwerk.client.client import Client
from fluxwerk.client.losses import check_certificate_store
from fluxwerk.client.proxy import find_proxies, is_direct
from fluxwerk.errors import AuthenticationError, FluxwerkError, MissingKeyError
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol import trust
from fluxwerk.types import HttpRequest
from fluxwerk.version import VERSION

Level = Literal["good", "note", "bad"]
# In seconds: a signature of a webhook is refused from five minutes on, and a delivery link is dead after ten.
SKEW, PATIENCE = 60.0, 10.0
# A batch of a thousand images of two megabytes.
LITTLE_SPACE = 2 * 1024**3
GIBIBYTE = 1024**3


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one check found: `bad` stands in the way of an image, `note` may; `todo` says what to do about it."""

    check: str
    level: Level
    text: str
    todo: str = ""


def findings(connection: Connection, folder: Path) -> Iterator[Diagnosis]:
    """Check everything, what can go wrong first before what depends on it."""
    yield Diagnosis("version", "good", f"fluxwerk {VERSION}, Python {platform.python_version()} on {platform.system()}")
    try:
        with connected(connection) as client:
            yield from _service(client)
    except FluxwerkError as error:
        yield _no_key(error)
        base = trust.base_url(connection.region, connection.base_url)
        yield from _way(base)
    yield _disk(folder)
    yield from _ledgers(folder)
    yield _gpu()


def _no_key(error: FluxwerkError) -> Diagnosis:
    if isinstance(error, MissingKeyError):
        return Diagnosis("key", "bad", "there is none", "Run `fluxwerk init`, or try everything with --offline.")
    return Diagnosis("key", "bad", "the client cannot be opened", str(error))


def _service(client: Client) -> Iterator[Diagnosis]:
    base = client.access.base
    yield Diagnosis("key", "good", f"one is there, for {base}")
    yield from _way(base)
    yield from _account(client, base)
    if base in trust.REGIONS.values():
        for region, address in trust.REGIONS.items():
            yield _latency(client, region, address)


def _way(base: str) -> Iterator[Diagnosis]:
    """Look at what lies between this machine and the service."""
    yield _proxy(base)
    yield _dns(base)
    yield _certificates(base)


def _proxy(base: str) -> Diagnosis:
    proxies = find_proxies()
    if not proxies:
        return Diagnosis("proxy", "good", "none")
    if is_direct(base, proxies):
        return Diagnosis("proxy", "good", f"{base} is reached directly")
    todo = "Requests are slower; NO_PROXY names exceptions."
    return Diagnosis("proxy", "note", f"requests to {base} go through one", todo)


def _dns(base: str) -> Diagnosis:
    host = urlsplit(base).hostname or ""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError as error:
        level: Level = "note" if find_proxies() else "bad"
        todo = "Look at the network and at /etc/resolv.conf; behind a proxy its own resolver is asked."
        return Diagnosis("DNS", level, f"{host} has no address: {error.strerror or error}", todo)
    return Diagnosis("DNS", "good", f"{host} has {len(addresses)} addresses")


def _certificates(base: str) -> Diagnosis:
    if not base.startswith("https://"):
        todo = "Anyone on the way reads the key; use https outside this machine."
        return Diagnosis("CA", "note", f"{base} is plain http", todo)
    try:
        check_certificate_store(base)
    except (FluxwerkError, OSError) as error:
        return Diagnosis("CA", "bad", str(error), "SSL_CERT_FILE names a file of certificates; unset or correct it.")
    return Diagnosis("CA", "good", "the certificates can be read")


def _account(client: Client, base: str) -> Iterator[Diagnosis]:
    try:
        balance = client.credits(timeout=PATIENCE)
        stamp = client.send(HttpRequest("GET", base), PATIENCE).headers.get("date", "")
    except AuthenticationError as error:
        yield Diagnosis("credits", "bad", str(error), "Create another key at https://dashboard.bfl.ai/get-started.")
        return
    except FluxwerkError as error:
        yield Diagnosis("credits", "bad", f"the service gives no answer: {error}", "Look at DNS, CA and proxy above.")
        return
    if balance > 0:
        yield Diagnosis("credits", "good", f"the balance is {money(balance)}")
    else:
        yield Diagnosis(
            "credits", "bad", f"the balance is {money(balance)}", "Buy credits at https://dashboard.bfl.ai."
        )
    yield clock_of(stamp, time.time())


def clock_of(stamp: str, now: float) -> Diagnosis:
    """Compare the time that an answer tells with this machine's, in seconds since 1970."""
    try:
        skew = now - parsedate_to_datetime(stamp).timestamp()
    except ValueError:
        return Diagnosis("clock", "note", "the service tells no time", "Compare this machine's clock with another one.")
    if abs(skew) <= SKEW:
        return Diagnosis("clock", "good", f"within {SKEW:.0f} seconds of the service's")
    return Diagnosis("clock", "bad", f"{abs(skew):.0f} seconds {'ahead' if skew > 0 else 'behind'}",
                   "Set the clock, for example by NTP: links and webhooks are judged by it.")  # fmt: skip


def _latency(client: Client, region: str, address: str) -> Diagnosis:
    began = time.perf_counter()
    try:
        client.send(HttpRequest("GET", address), PATIENCE)
        opened = time.perf_counter()
        client.send(HttpRequest("GET", address), PATIENCE)
    except FluxwerkError as error:
        return Diagnosis(region, "note", f"cannot be reached: {error}", "Another region may be used: --region.")
    again, first = (time.perf_counter() - opened) * 1000, (opened - began) * 1000
    return Diagnosis(region, "good", f"{address}: {again:.0f} ms a request, {first:.0f} ms the first")


def _disk(folder: Path) -> Diagnosis:
    free = shutil.disk_usage(folder).free
    text = f"{free / GIBIBYTE:.1f} GiB are free in {folder}"
    if free < LITTLE_SPACE:
        todo = "Free some space: an image has up to 20 MB, and a batch proves its place only once."
        return Diagnosis("disk", "bad", text, todo)
    return Diagnosis("disk", "good", text)


def _ledgers(folder: Path) -> Iterator[Diagnosis]:
    for path in sorted(folder.glob(f"*{LEDGER_SUFFIX}")):
        try:
            with Ledger.open(path) as ledger:
                sums = ledger.budget.sums()
        except FluxwerkError as error:
            yield Diagnosis("ledger", "bad", f"{path.name}: {error}")
            continue
        doubtful, waiting = sums.count(Stage.DOUBTFUL), sums.count(Stage.SUBMITTED, Stage.READY)
        text = f"{path.name}: {sums.count()} jobs, {sums.count(Stage.SAVED)} saved"
        if doubtful:
            todo = f"`fluxwerk batch status {path.name}` lists them, and `fluxwerk batch settle` settles them."
            yield Diagnosis("ledger", "note", f"{text}, {doubtful} in doubt", todo)
        elif waiting:
            todo = f"Run `fluxwerk batch run {path.name}`."
            yield Diagnosis("ledger", "note", f"{text}, {waiting} paid for and not saved", todo)
        else:
            yield Diagnosis("ledger", "good", text)


def _gpu() -> Diagnosis:
    program = shutil.which("nvidia-smi")
    if program is None:
        if sys.platform == "darwin":
            return Diagnosis("GPU", "good", "Apple's, as device mps, for `fluxwerk serve --engine diffusers`")
        todo = "Only `fluxwerk serve --engine diffusers` needs a GPU."
        return Diagnosis("GPU", "note", "no NVIDIA driver is installed", todo)
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    names = "; ".join(done.stdout.split("\n")).strip("; ")
    if done.returncode or not names:
        return Diagnosis("GPU", "note", "the NVIDIA driver does not answer", "Run nvidia-smi; it says what is wrong.")
    return Diagnosis("GPU", "good", names)
