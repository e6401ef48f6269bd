"""An object store in a process of its own: as much of S3 as images need, and 503 to everything while it is closed.

Run as a program it says its address, then a line for each request that it refuses.  SIGUSR1 closes it, SIGUSR2 opens it
again.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import unescape

DATE = "Wed, 25 Nov 2026 12:00:00 GMT"


class BucketHandler(BaseHTTPRequestHandler):
    """Answers for the objects of any bucket, unless it is closed."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    closed: threading.Event

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self._is_open():
            self.objects[self.path] = data
            self._answer(200)

    def do_GET(self) -> None:
        if self._is_open():
            self._answer(200 if self.path in self.objects else 404, self.objects.get(self.path, b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        if self._is_open():
            keys = re.findall("<Key>.*?</Key>", asked)
            for key in keys:
                self.objects.pop(f"{self.path.partition('?')[0].rstrip('/')}/{unescape(key[5:-6])}", None)
            self._answer(200, f"<DeleteResult><Deleted>{''.join(keys)}</Deleted></DeleteResult>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _is_open(self) -> bool:
        closed = self.closed.is_set()
        if closed:
            sys.stdout.write(f"{self.command} {self.path}\n")
            sys.stdout.flush()
            self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        return not closed

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (("content-length", str(len(body))), ("etag", '"it"'), ("last-modified", DATE)):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass
class BucketProcess:
    """A store that can be closed and opened; `refused` are the requests that met it closed."""

    base: str
    log: Path
    running: subprocess.Popen

    @property
    def refused(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()[1:]

    def close(self) -> None:
        self.running.send_signal(signal.SIGUSR1)

    def open(self) -> None:
        self.running.send_signal(signal.SIGUSR2)


@contextmanager
def bucket_process(folder: Path) -> Iterator[BucketProcess]:
    """Run a store until the block ends."""
    said = folder / "bucket.log"
    with said.open("w") as log, subprocess.Popen([sys.executable, __file__], stdout=log) as running:
        try:
            while not (told := said.read_text(encoding="utf-8")).endswith("\n"):
                assert running.poll() is None, "the store did not start"
            yield BucketProcess(told.strip(), said, running)
        finally:
            running.kill()


def main() -> None:
    closed = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: closed.set())
    signal.signal(signal.SIGUSR2, lambda *_: closed.clear())
    handler = type("OneBucketHandler", (BucketHandler,), {"objects": {}, "closed": closed})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
