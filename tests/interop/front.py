"""api.bfl.ai on this machine: a proxy that answers for every host under .bfl.ai with our own server.

Some clients insist on https and on BFL's own hosts.  A person who wants them on another server does what this does:
an HTTPS_PROXY that ends the TLS for those hosts, and a certificate authority that the client is told to trust.
Nothing of the client is changed.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

NAMES = ("api.bfl.ai", "*.bfl.ai", "api.us1.bfl.ai")
# Said anew for the next connection.
HOP = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"})


class _Relay(BaseHTTPRequestHandler):
    """Carries a request that arrived inside the tunnel to our server, under the name that the client gave it."""

    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _carry(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        # The server writes polling and delivery URLs with the scheme and the host by which it was asked.
        headers |= {"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
        behind = HTTPConnection(self.server.behind, timeout=60)
        behind.request(self.command, self.path, body or None, headers)
        answer = behind.getresponse()
        data = answer.read()
        self.server.seen.append((self.headers["host"], self.command, urlsplit(self.path).path, answer.status))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        behind.close()

    do_GET = do_POST = _carry  # noqa: N815  (the library's names)

    def log_message(self, *_: object) -> None:
        pass


class _Tunnel(BaseHTTPRequestHandler):
    """Opens a tunnel to a host under .bfl.ai, and ends its TLS here; no other host is reached."""

    server: _Proxy

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        if not host.endswith(".bfl.ai"):
            self.send_error(403, f"{host} is outside")
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with self.server.context.wrap_socket(self.connection, server_side=True) as inside:
            _Relay(inside, self.client_address, self.server)

    def log_message(self, *_: object) -> None:
        pass


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    behind: str
    context: ssl.SSLContext
    seen: list[tuple[str, str, str, int]]

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def front(base: str, folder: Path) -> Iterator[tuple[dict[str, str], list[tuple[str, str, str, int]]]]:
    """Yield the environment that sends a client here, and the list of what it asked for."""
    import trustme  # noqa: PLC0415  (only this group of tests has it)

    authority = trustme.CA()
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    with _Proxy(("127.0.0.1", 0), _Tunnel) as proxy:
        proxy.behind, proxy.seen = urlsplit(base).netloc, []
        proxy.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*NAMES).configure_cert(proxy.context)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        trusted = {name: str(bundle) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")}
        try:
            yield {"HTTPS_PROXY": address, "https_proxy": address, **trusted}, proxy.seen
        finally:
            proxy.shutdown()
            thread.join()
