"""A server of one's own for as long as it is needed: real HTTP on a free port of this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fluxwerk.engines import Engine
from fluxwerk.protocol import trust
from fluxwerk.server.errors import Dialect
from fluxwerk.server.faults.rules import FaultRule, Faults, scripted
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import Pace, ServerState
from fluxwerk.server.state.webhooks import WebhookPolicy

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

LISTEN_BACKLOG = 2048
HOME = "127.0.0.1"

log = logging.getLogger("fluxwerk.server")


@contextmanager
def loopback(
    engine: Engine | None = None,
    *,
    accounts: Accounts | None = None,
    pace: Pace = lambda _: 0.0,
    allow: Iterable[str] = ("127.0.0.0/8",),
    trouble: Faults | Iterable[FaultRule] = (),
    dialect: Dialect = "live",
    strict: bool = False,
    hosts: Iterable[str] = (),
    proxies: Iterable[str] = (),
    aliases: Mapping[str, str] | None = None,
    keeps_keys: bool = False,
    redirects: bool = False,
    clock: Callable[[], float] = time.time,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Generator[str]:
    """Run the server in a thread and yield its base URL; the offline engine renders unless another is given.

    `allow` names the networks from which input images may be fetched, and to which webhooks may go by plain http,
    beside the public ones.  `trouble` is how the server misbehaves on purpose.  A `strict` server
    refuses unknown fields, surplus references and sizes off the grid, which the live service ignores.  The server
    answers to loopback names and to `hosts`, and believes the forwarded headers of `proxies`.
    `aliases` map other names of models to those that they stand for, for clients of other services.  As the live
    service, it ignores the Idempotency-Key of a submit, unless it `keeps_keys`.  One that `redirects`
    sends links on to its store.  `clock` tells the server the time in seconds since 1970, and `wrap` may put
    something around its application.
    """
    import uvicorn  # noqa: PLC0415

    from fluxwerk.engines.offline import OfflineEngine  # noqa: PLC0415  (other engines do without)
    from fluxwerk.server.app import build  # noqa: PLC0415  (FastAPI takes half a second)
    from fluxwerk.server.fetch import Guard  # noqa: PLC0415
    from fluxwerk.server.hosts import HostCheck  # noqa: PLC0415
    from fluxwerk.server.requestlog import RequestLog  # noqa: PLC0415

    engine = engine or OfflineEngine()
    allow = tuple(allow)
    trouble = scripted(trouble)
    state = ServerState(
        accounts or Accounts(),
        clock,
        engine=engine.name,
        pace=pace,
        policy=WebhookPolicy(networks=allow),
        trouble=trouble,
        dialect=dialect,
        strict=strict,
        keeps_keys=keeps_keys,
        redirects=redirects,
    )
    with listen(HOME, 0) as listening:
        app = wrap(RequestLog(HostCheck(build(state, engine, Guard(allow), aliases=aliases), hosts)))
        server = uvicorn.Server(
            config_of(
                app, breakable=bool(trouble.rules) or trouble.may_change, proxies=proxies, timeout_graceful_shutdown=5
            )
        )
        thread = threading.Thread(target=server.run, args=([listening],), name="fluxwerk-server", daemon=True)
        thread.start()
        try:
            # The socket listens already, so a client that comes early waits in its backlog.
            yield f"http://{HOME}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 takes a free one.

    The protocol is named because asyncio sends small packets at once only on sockets that name it: without it every
    answer would wait 40 milliseconds for the client's acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def config_of(app: ASGIApp, *, breakable: bool = False, proxies: Iterable[str] = (), **settings: Any) -> uvicorn.Config:
    """Set uvicorn up, with a log that shows no signed query; `breakable` lines are for trouble.

    Forwarded headers count only from the addresses and networks in `proxies`; uvicorn alone believes all of loopback.
    """
    import uvicorn  # noqa: PLC0415

    from fluxwerk.server import descriptors  # noqa: PLC0415
    from fluxwerk.server.faults.connection import FaultyConnection  # noqa: PLC0415
    from fluxwerk.server.timed import TimedConnection  # noqa: PLC0415

    # The log of requests is off, but a program may attach a handler of its own to it.
    logging.getLogger("uvicorn.access").addFilter(_hide_queries)
    logging.getLogger("asyncio").addFilter(descriptors.SHOWN)
    proxies = list(proxies)
    return uvicorn.Config(
        app,
        http=FaultyConnection if breakable else TimedConnection,
        log_config=None,
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        limit_concurrency=descriptors.connections(),
        timeout_keep_alive=descriptors.KEEP_ALIVE,
        **settings,
    )


def _hide_queries(record: logging.LogRecord) -> bool:
    """Redact a record: the query of a delivery link is the image's key."""
    if isinstance(record.args, tuple):
        record.args = tuple(trust.redact(part) if isinstance(part, str) else part for part in record.args)
    return True
