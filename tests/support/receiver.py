"""A receiver of webhooks on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue


@contextmanager
def receiving(*answers: int) -> Iterator[tuple[str, Queue]]:
    """A receiver on loopback; its queue holds headers and body of every POST."""
    got: Queue = Queue()
    left = list(answers)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:
                # Who sent it was killed meanwhile, and sends it again.
                self.close_connection = True
                return
            status = left.pop(0) if left else 204
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
            got.put(({name.lower(): value for name, value in self.headers.items()}, body, self.path))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/hook", got
        finally:
            server.shutdown()
            thread.join()
