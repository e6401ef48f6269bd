"""A proxy before a server that twists some of its answers, for a server that is wrong in one known way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

HOME = "127.0.0.1"
# What belongs to a connection, or is counted anew.
OWN_HEADERS = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass
class Answer:
    """One answer on its way, to be changed in place."""

    method: str
    path: str
    status: int
    headers: dict[str, str]
    body: bytes


Twist = Callable[[Answer], None]


@contextmanager
def twisting(base: str, twist: Twist) -> Iterator[str]:
    """Yield the base URL of a proxy before `base`, through which every answer passes `twist`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            theirs = client.request(self.command, base + self.path, content=body, headers=dict(self.headers))
            headers = {name: value for name, value in theirs.headers.items() if name not in OWN_HEADERS}
            answer = Answer(self.command, self.path, theirs.status_code, headers, theirs.content)
            twist(answer)
            self.send_response(answer.status)
            for name, value in (answer.headers | {"content-length": str(len(answer.body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_POST = do_HEAD = do_GET  # noqa: N815  (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    with httpx2.Client(trust_env=False) as client, ThreadingHTTPServer((HOME, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOME}:{server.server_port}"
        server.shutdown()
