"""What goes through a proxy and what never does, and what a proxy that cannot be used says."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fluxwerk import AsyncClient, Client, ConnectionFailedError
from fluxwerk.client.proxy import find_proxies, is_direct, is_loopback, open_failed
from fluxwerk.testing import loopback

KEY = "a-secret-key"
ANYWHERE = {"all": "http://proxy.invalid:3128"}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def proxy(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy on loopback that gives every request the same answer; yields its URL and what it read."""
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
                    seen.append(line.recv(65536))
                    line.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


CREDITS = b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{"credits":5}'
REFUSED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
PASSWORD = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def ask(kind: str, name: str, base: str) -> object:
    given = ["x"] if name in ("submit", "generate") else []
    if kind == "sync":
        with Client(KEY, base_url=base, timeout=20) as client:
            return getattr(client, name)(*given)

    async def run() -> object:
        async with AsyncClient(KEY, base_url=base, timeout=20) as client:
            return await getattr(client, name)(*given)

    return asyncio.run(run())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
def test_loopback_never_meets_a_proxy(kind, monkeypatch):
    with proxy(REFUSED) as (address, seen), loopback() as base:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name.lower(), address)
        image = ask(kind, "generate", base)

    assert image.width > 0
    assert seen == []


@both
@pytest.mark.parametrize("address", ["socks5://127.0.0.1:9", "htp://bad", "http://[bad"])
def test_a_proxy_that_cannot_be_used_does_not_trouble_loopback(kind, address, monkeypatch):
    monkeypatch.setenv("all_proxy", address)
    with loopback() as base:
        assert ask(kind, "generate", base).width > 0


@both
def test_a_request_to_elsewhere_goes_through_the_proxy(kind, monkeypatch):
    with proxy(CREDITS) as (address, seen):
        monkeypatch.setenv("http_proxy", address)
        assert ask(kind, "credits", "http://service.invalid") == 5

    assert seen[0].startswith(b"GET http://service.invalid/v1/credits HTTP/1.1\r\n")


@both
def test_a_socks_proxy_without_its_package_names_the_extra(kind, monkeypatch):
    """A SOCKS proxy without its package fails with one sentence that names the extra to install."""
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(ConnectionFailedError) as caught:
        ask(kind, "submit", "http://service.invalid")

    assert str(caught.value) == (
        "The proxy is a SOCKS proxy, which needs one more package: pip install 'fluxwerk[socks]'"
    )
    assert caught.value.permanent
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@both
def test_a_proxy_with_an_unknown_scheme_is_one_sentence(kind, monkeypatch):
    monkeypatch.setenv("http_proxy", "htp://bad")
    with pytest.raises(ConnectionFailedError, match="HTTP_PROXY begins with htp://") as caught:
        ask(kind, "submit", "http://service.invalid")

    assert caught.value.permanent
    assert "http://host:port" in str(caught.value)
    assert "\n" not in str(caught.value)


@both
def test_a_proxy_that_refuses_the_tunnel_leaves_no_doubt(kind, monkeypatch):
    with proxy(PASSWORD) as (address, seen):
        monkeypatch.setenv("https_proxy", address)
        with pytest.raises(ConnectionFailedError, match="asks for a user and a password") as caught:
            ask(kind, "submit", "https://service.invalid")

    assert caught.value.permanent
    assert seen[0].startswith(b"CONNECT service.invalid:443 ")
    assert KEY.encode() not in b"".join(seen)


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.9.1/", True),
        ("http://localhost:8000/", True),
        ("http://api.localhost/", True),
        ("http://LOCALHOST./", True),
        ("http://[::1]:8000/", True),
        ("http://notlocalhost/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://10.0.0.1/", False),
        ("https://api.bfl.ai/", False),
    ],
)
def test_only_this_machine_is_direct_by_itself(url, direct):
    assert is_direct(url, ANYWHERE) is direct


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("api.bfl.ai", "https://api.bfl.ai/v1", True),
        (".bfl.ai", "https://api.eu.bfl.ai/v1", True),
        ("bfl.ai, example.com", "https://api.bfl.ai/v1", True),
        ("*", "https://api.bfl.ai/v1", True),
        ("bfl.ai", "https://notbfl.ai/v1", False),
        ("10.0.0.0/8", "http://10.1.2.3:8000/", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000/", False),
        ("gateway:8000", "http://gateway:8000/", True),
        ("gateway:8000", "http://gateway:9000/", False),
        ("nonsense/99", "http://10.1.2.3/", False),
    ],
)
def test_no_proxy_is_obeyed(exempt, url, direct, monkeypatch):
    monkeypatch.setenv("no_proxy", exempt)
    assert is_direct(url, ANYWHERE) is direct


def test_a_scheme_without_a_proxy_is_direct(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("ftp_proxy", "http://proxy.invalid:3128")

    assert find_proxies() == {"https": "http://proxy.invalid:3128"}
    assert is_direct("http://api.bfl.ai/", find_proxies())
    assert not is_direct("https://api.bfl.ai/", find_proxies())


def test_a_host_that_is_not_an_address_is_not_loopback():
    assert not is_loopback("")
    assert not is_loopback("localhost.example")


def test_certificates_for_the_proxy_that_cannot_be_read_are_named():
    failure = open_failed(FileNotFoundError(2, "No such file or directory"), ANYWHERE)

    assert str(failure) == "The certificates cannot be read (No such file or directory). Check SSL_CERT_FILE."


@both
def test_the_password_of_a_proxy_stays_out_of_the_message(kind, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:CANARY#@proxy.invalid:port")
    with pytest.raises(ConnectionFailedError, match="cannot be used") as caught:
        ask(kind, "submit", "http://service.invalid")

    assert "CANARY" not in str(caught.value)
