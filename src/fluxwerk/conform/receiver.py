"""A receiver for the webhooks of a conformance run; it keeps what came, and is told where it can be reached."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST_BODY = 1_000_000
READ_TIMEOUT = 10.0


class Calls:
    """The webhooks that came: headers in lower case, and body."""

    def __init__(self) -> None:
        self._came: list[tuple[dict[str, str], bytes]] = []
        self._changed = threading.Condition()

    def add(self, headers: dict[str, str], body: bytes) -> None:
        """Keep one."""
        with self._changed:
            self._came.append((headers, body))
            self._changed.notify_all()

    def about(self, task: str, seconds: float) -> tuple[dict[str, str], bytes] | None:
        """Return the webhook of a task, once it has come; `None` if it does not within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(task) is not None, seconds)
            return self._find(task)

    def _find(self, task: str) -> tuple[dict[str, str], bytes] | None:
        return next((call for call in self._came if task.encode() in call[1]), None)


@contextmanager
def receiving(host: str, port: int) -> Generator[tuple[int, Calls]]:
    """Listen for webhooks in a thread; yields the port and what comes."""
    calls = Calls()

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_TIMEOUT

        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length") or 0), LONGEST_BODY)
            calls.add({name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
            """Log nothing: a path may hold a token."""

    with ThreadingHTTPServer((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="fluxwerk-webhooks", daemon=True)
        thread.start()
        try:
            yield server.server_port, calls
        finally:
            server.shutdown()
            thread.join()
