"""What failed before its first byte left is never in doubt, and what no repetition mends ends at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest

from fluxwerk import AsyncClient, Client, ConnectionFailedError, InDoubtError, NoResponseError, TransportError
from fluxwerk.client.losses import Departure, read_loss
from fluxwerk.types import HttpRequest

KEY = "a-secret-key"


class Asked:
    """Either client, with `submit` and `send` as plain functions."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def do(self, name: str, *given: object, base_url: str, http_client: object = None, timeout: float = 5.0) -> object:
        how = {"base_url": base_url, "http_client": http_client, "timeout": timeout}
        if self.kind == "sync":
            with Client(KEY, **how) as client:
                return getattr(client, name)(*given)

        async def run() -> object:
            async with AsyncClient(KEY, **how) as client:
                return await getattr(client, name)(*given)

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Asked:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Asked(request.param)


@contextmanager
def listening(context: ssl.SSLContext | None = None, answer: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A host on loopback that answers each connection once, or hangs up; yields its address and what it read."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with suppress(OSError), line:
                    line.settimeout(5)
                    wire = context.wrap_socket(line, server_side=True) if context else line
                    seen.append(wire.recv(65536))
                    wire.sendall(answer)
                    wire.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture(scope="module")
def stranger() -> ssl.SSLContext:
    """A server's TLS with a certificate that no machine trusts."""
    trustme = pytest.importorskip("trustme")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_missing_certificate_store_ends_a_submit_at_once_without_doubt(asked, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    with listening() as (place, seen), pytest.raises(ConnectionFailedError) as caught:
        asked.do("submit", "x", base_url=f"https://{place}")

    assert caught.value.permanent
    assert "SSL_CERT_FILE = /nonexistent.pem cannot be read (No such file or directory)" in str(caught.value)
    assert seen == []


def test_a_certificate_store_that_is_not_pem_ends_a_submit_at_once(asked, monkeypatch, tmp_path):
    (tmp_path / "store.pem").write_text("not a certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "store.pem"))
    with listening() as (place, _), pytest.raises(ConnectionFailedError, match="Name a PEM file") as caught:
        asked.do("submit", "x", base_url=f"https://{place}")

    assert caught.value.permanent


@pytest.mark.parametrize("name", ["submit", "credits"])
def test_a_certificate_that_is_not_trusted_ends_at_once_with_its_reason(asked, stranger, monkeypatch, name):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with listening(stranger) as (place, seen), pytest.raises(ConnectionFailedError) as caught:
        asked.do(name, *(["x"] if name == "submit" else []), base_url=f"https://{place}")

    assert caught.value.permanent
    assert "certificate was refused (unable to get local issuer certificate)" in str(caught.value)
    assert seen == []


def test_a_host_that_does_not_speak_tls_leaves_nothing_in_doubt(asked):
    with listening(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as (place, _), pytest.raises(ConnectionFailedError):
        asked.do("send", HttpRequest("POST", f"https://{place}/v1/flux-2-pro", b"{}"), base_url=f"https://{place}")


def test_a_host_that_hangs_up_during_the_handshake_leaves_nothing_in_doubt(asked):
    with listening() as (place, _), pytest.raises(ConnectionFailedError) as caught:
        asked.do("send", HttpRequest("POST", f"https://{place}/v1/flux-2-pro", b"{}"), base_url=f"https://{place}")

    assert not caught.value.permanent


def test_a_name_that_dns_does_not_know_leaves_nothing_in_doubt(asked):
    base = "http://nothing.invalid"
    with pytest.raises(ConnectionFailedError):
        asked.do("send", HttpRequest("POST", f"{base}/v1/flux-2-pro", b"{}"), base_url=base)


@pytest.mark.parametrize("lent", [False, True], ids=["ours", "lent"])
def test_a_submit_whose_bytes_were_read_is_in_doubt(asked, lent):
    http = (httpx2.Client() if asked.kind == "sync" else httpx2.AsyncClient()) if lent else None
    with listening() as (place, seen), pytest.raises(InDoubtError):
        asked.do("submit", "x", base_url=f"http://{place}", http_client=http, timeout=2)

    assert [request.startswith(b"POST") for request in seen].count(True) == 1


def test_a_handshake_that_outlasts_the_deadline_leaves_nothing_in_doubt(asked):
    # The backlog takes the connection, and no one speaks TLS on it.
    with socket.create_server(("127.0.0.1", 0)) as server:
        base = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionFailedError):
            asked.do("send", HttpRequest("POST", f"{base}/v1/flux-2-pro", b"{}"), 0.3, base_url=base)


class Sent:
    """What the trace shows of a request."""

    def __init__(self, method: bytes) -> None:
        self.method = method


def test_a_departure_is_the_moment_when_the_request_itself_is_written():
    departure = Departure()
    departure.watch("connection.connect_tcp.started", {})
    departure.watch("http11.send_request_headers.started", {"request": Sent(b"CONNECT")})
    assert departure.give_up() is False

    departure = Departure()
    departure.watch("http2.send_request_headers.started", {"request": Sent(b"POST")})
    assert departure.give_up() is True


def test_what_was_given_up_may_not_leave_afterwards():
    departure = Departure()
    assert departure.give_up() is False
    with pytest.raises(ConnectionFailedError, match="Nothing was sent"):
        departure.watch("http11.send_request_headers.started", {"request": Sent(b"POST")})


def test_what_comes_to_its_turn_after_the_deadline_does_not_leave():
    with pytest.raises(ConnectionFailedError, match="before the deadline"):
        Departure(until=0.0).watch("http11.send_request_headers.started", {"request": Sent(b"POST")})


def test_without_a_trace_only_the_name_of_the_exception_can_tell():
    assert Departure(certain=False).give_up() is None
    assert type(read_loss(httpx2.ReadError("reset"), left=None)) is NoResponseError
    assert type(read_loss(httpx2.ReadError("reset"), left=False)) is ConnectionFailedError
    assert type(read_loss(httpx2.ConnectError("refused"), left=True)) is NoResponseError
    assert read_loss(ZeroDivisionError(), left=False) is None


def test_a_proxy_that_asks_for_a_password_is_not_asked_again():
    loss = read_loss(httpx2.ProxyError("407 Proxy Authentication Required"), left=False)

    assert loss.permanent
    assert "user:password@host" in str(loss)


def test_a_loss_repeats_at_most_200_characters_of_what_came():
    loss = read_loss(httpx2.RemoteProtocolError("illegal header line " + "x" * 5000), left=True)

    assert isinstance(loss, TransportError)
    assert len(str(loss)) < 240


def test_a_certificate_error_of_the_caller_is_not_taken_for_ours():
    try:
        raise ssl.SSLCertVerificationError("the caller's own")
    except ssl.SSLCertVerificationError as outer:
        try:
            raise httpx2.ConnectError("refused")
        except httpx2.ConnectError as trouble:
            loss = read_loss(trouble, left=False, outer=outer)
    assert not loss.permanent
    assert "certificate" not in str(loss)
