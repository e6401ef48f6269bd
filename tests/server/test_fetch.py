"""The guard: every way by which a stranger's URL could lead inside, with an injected resolver and loopback sockets."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from fluxwerk.catalog.images import LARGEST_BYTES
from fluxwerk.errors import ConnectionFailedError, NoResponseError, TransportError
from fluxwerk.server.fetch import Guard
from fluxwerk.types import HttpRequest, Response

HERE = ("127.0.0.0/8",)
PUBLIC = "93.184.216.34"
# Bytes of a body that drips, one in each turn of the event loop: together they take far longer than 0.1 seconds.
DRIPS = 100_000


class Origin:
    """A host on loopback; `asked` holds the head of every request that reached it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.port = 0
        self.serving: list[asyncio.Task[None]] = []
        self.dripped = 0

    async def serve(self, reader, writer) -> None:
        self.serving.append(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        path = head.split()[1]
        try:
            await getattr(self, path.strip("/").partition("?")[0].replace("-", "_"))(writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            writer.close()

    async def img(self, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage")

    async def missing(self, writer) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async def to_image(self, writer) -> None:
        self._redirect(writer, "/img")

    async def to_metadata(self, writer) -> None:
        self._redirect(writer, "http://169.254.169.254/latest/meta-data/")

    async def to_file(self, writer) -> None:
        self._redirect(writer, "file:///etc/passwd")

    async def to_nothing(self, writer) -> None:
        self._redirect(writer, "http://[half/")

    async def in_circles(self, writer) -> None:
        self._redirect(writer, "/in-circles")

    async def big(self, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(22):
            writer.write(b"x" * 2**20)
            await writer.drain()

    async def largest(self, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGEST_BYTES + b"x" * LARGEST_BYTES)

    async def packed(self, writer) -> None:
        body = gzip.compress(b"0" * 50_000_000, 1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def drip(self, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while self.dripped < DRIPS and not writer.is_closing():
            self.dripped += 1
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0)

    async def cut(self, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")

    async def noise(self, writer) -> None:
        writer.write(b"no HTTP at all\r\n\r\n")

    def _redirect(self, writer, target: str) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target.encode())


def fetch(url: str, guard: Guard | None = None, origin: Origin | None = None) -> Response:
    """Ask the guard; PORT in the URL becomes the origin's."""

    async def run() -> Response:
        host = origin or Origin()
        server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
        host.port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                return await (guard or Guard(HERE)).fetch(HttpRequest("GET", url.replace("PORT", str(host.port))))
            finally:
                await asyncio.gather(*host.serving, return_exceptions=True)

    return asyncio.run(run())


def answering(*answers: list[str]):
    """A resolver that gives one answer after the other, and counts."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def refusal(url: str, guard: Guard | None = None, origin: Origin | None = None) -> str:
    with pytest.raises(TransportError) as caught:
        fetch(url, guard, origin)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254",
        "100.100.100.200", "10.0.0.1", "192.168.1.1", "172.16.0.1", "[fd00:ec2::254]", "[fe80::1]",
    ],
)  # fmt: skip
def test_no_spelling_of_an_inner_address_is_asked(host):
    origin = Origin()
    reason = refusal(f"http://{host}:PORT/img", Guard(), origin)
    assert reason in ("its address is not a public one", "it could not be reached")
    assert origin.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "100.64.0.1", "169.254.169.254", "172.31.0.1", "192.0.0.8", "192.0.2.1",
        "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:0:0", "::ffff:192.88.99.1", "::ffff:224.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1", "2001::1", "2001:db8::1", "2002:a00:1::", "fc00::1", "fd00:ec2::254", "fe80::1%eth0",
        "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_a_name_for_an_inner_address_is_refused_before_connecting(address):
    assert refusal("http://name.test/", Guard(resolve=answering([address]))) == "its address is not a public one"


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_a_public_address_is_allowed(address):
    assert Guard()._backend._may_reach(address, 443)
    assert not Guard()._backend._may_reach(address, 8080)


def test_one_inner_address_among_public_ones_condemns_the_name():
    assert (
        refusal("http://mixed.test/", Guard(resolve=answering([PUBLIC, "127.0.0.1"])))
        == "its address is not a public one"
    )


def test_a_name_without_addresses_is_refused():
    assert refusal("http://empty.test/", Guard(resolve=answering([]))) == "its address is not a public one"


def test_the_checked_address_is_the_connected_address():
    """A rebound name leads nowhere since the judged address is the connected one."""
    origin = Origin()
    asked: list[str] = []

    async def rebind(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["169.254.169.254"]

    # 127.0.0.2 plays the public host; nobody listens there, and the second answer is never asked for.
    assert refusal("http://rebind.test:PORT/img", Guard(["127.0.0.2/32"], rebind), origin) == "it could not be reached"
    assert asked == ["rebind.test"]
    assert (
        refusal("http://rebind.test:PORT/img", Guard(["127.0.0.2/32"], rebind), origin)
        == "its address is not a public one"
    )
    assert origin.asked == []


def test_the_next_address_is_tried_when_one_is_dead():
    guard = Guard(HERE, answering(["127.0.0.2", "127.0.0.1"]))
    assert fetch("http://two.test:PORT/img", guard).body == b"image"


def test_allowed_networks_open_any_port_but_no_other_network():
    assert fetch("http://127.0.0.1:PORT/img").body == b"image"
    assert refusal("http://10.0.0.1:PORT/img") == "its address is not a public one"


def test_only_the_web_ports_are_asked_outside():
    assert refusal("http://name.test:6379/", Guard(resolve=answering([PUBLIC]))) == "its address is not a public one"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "//127.0.0.1/", "http://", "http:///img",
        "http://user@127.0.0.1:PORT/img", "http://user:word@127.0.0.1:PORT/img", "http://@127.0.0.1:PORT/img",
        "http://127.0.0.1:0/img", "http://127.0.0.1:99999/img", "http://127.0.0.1:x/img", "http://[::1/img",
        "http://127.0.0.1:PORT\\@other/img", "http://127.0.0.1:PORT/a b", "http://127.0.0.1:PORT/\r\nx: y",
        "http://\uff11\uff12\uff17.0.0.1:PORT/img", "img", "http://127.0.0.1:PORT/ä",
    ],
)  # fmt: skip
def test_what_is_no_plain_web_url_is_not_asked(url):
    origin = Origin()
    assert refusal(url, origin=origin) == "it is not a plain http or https URL"
    assert origin.asked == []


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "[fe80::1%nowhere]"])
def test_a_name_that_cannot_resolve_is_no_accident(host):
    assert refusal(f"http://{host}/") == "it could not be reached"


def test_a_redirect_is_followed():
    origin = Origin()
    assert fetch("http://127.0.0.1:PORT/to-image", origin=origin).body == b"image"
    assert [head.split()[1] for head in origin.asked] == ["/to-image", "/img"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("to-metadata", "its address is not a public one"),
        ("to-file", "it is not a plain http or https URL"),
        ("to-nothing", "it could not be reached"),
        ("in-circles", "it redirects too often"),
    ],
)
def test_a_redirect_leads_nowhere_that_its_target_would_not(path, reason):
    assert refusal(f"http://127.0.0.1:PORT/{path}") == reason


def test_a_body_is_cut_at_20_mb():
    assert refusal("http://127.0.0.1:PORT/big") == "it is larger than 20 MB"
    assert len(fetch("http://127.0.0.1:PORT/largest").body) == LARGEST_BYTES


def test_a_compressed_body_is_not_unpacked():
    origin = Origin()
    assert refusal("http://127.0.0.1:PORT/packed", origin=origin) == "its body is compressed"
    assert "accept-encoding: identity" in origin.asked[0].lower()


def test_a_dripping_body_ends_at_the_deadline():
    origin = Origin()
    guard = Guard(HERE, deadline=0.1)
    assert refusal("http://127.0.0.1:PORT/drip", guard, origin) == "it did not answer in time"
    assert 0 < origin.dripped < DRIPS


def test_a_dripping_body_ends_when_the_submit_has_no_time_left():
    origin = Origin()

    async def run() -> None:
        async with await asyncio.start_server(origin.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            request = HttpRequest("GET", f"http://127.0.0.1:{port}/drip")
            with pytest.raises(NoResponseError, match="did not answer in time"):
                await Guard(HERE).fetch(request, 0.1)
            await asyncio.gather(*origin.serving, return_exceptions=True)

    asyncio.run(run())
    assert 0 < origin.dripped < DRIPS


def test_a_name_server_that_hangs_ends_at_the_deadline():
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    assert refusal("http://slow.test/", Guard(resolve=hang, deadline=0.05)) == "it did not answer in time"


@pytest.mark.parametrize("path", ["cut", "noise"])
def test_a_broken_answer_is_a_lost_one(path):
    assert refusal(f"http://127.0.0.1:PORT/{path}") == "it could not be reached"


def test_an_error_status_is_an_answer():
    assert fetch("http://127.0.0.1:PORT/missing").status == 404


def test_what_was_never_sent_and_what_was_lost_are_told_apart():
    with pytest.raises(ConnectionFailedError):
        fetch("http://127.0.0.1:PORT/img", Guard())
    with pytest.raises(NoResponseError):
        fetch("http://127.0.0.1:PORT/packed")


def test_the_host_is_named_as_in_the_url_and_nothing_secret_is_sent():
    origin = Origin()
    fetch("http://127.0.0.1:PORT/img?a=b#c", origin=origin)
    lines = origin.asked[0].lower().splitlines()
    assert lines[0] == "get /img?a=b http/1.1"
    names = {line.partition(":")[0] for line in lines[1:] if line}
    assert names == {"host", "accept-encoding", "user-agent"}
    assert f"host: 127.0.0.1:{origin.port}" in lines


def test_the_backend_opens_no_local_socket_and_sleeps_as_the_one_below():
    backend = Guard()._backend
    with pytest.raises(ConnectionFailedError):
        asyncio.run(backend.connect_unix_socket("/run/docker.sock"))
    asyncio.run(backend.sleep(0))
