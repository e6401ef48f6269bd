"""Which names a server answers to, and what its links are made of."""

from __future__ import annotations

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.server.hosts import HostCheck
from fluxwerk.testing import loopback
from support.asking import PRO
from support.process import process

SMALL = {"prompt": "x", "width": 64, "height": 64}
KEY = {"x-key": "a-key"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "[", ""])
def test_a_foreign_host_is_refused(fluxwerk_server, host):
    answer = httpx2.get(fluxwerk_server + "/healthz", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]) == (421, "misdirected_request")
    assert "--allowed-host" in answer.json()["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9", "[::1]:8000"])
def test_a_loopback_host_is_answered(fluxwerk_server, host):
    assert httpx2.get(fluxwerk_server + "/healthz", headers={"host": host}).status_code == 200


def test_an_allowed_host_is_answered():
    with loopback(hosts=["Flux.Example"]) as base:
        assert httpx2.get(base + "/healthz", headers={"host": "flux.example:80"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1.evil.example"])
def test_a_foreign_origin_may_not_change_anything(fluxwerk_server, origin):
    headers = {**KEY, "origin": origin}
    answer = httpx2.post(fluxwerk_server + PRO, json=SMALL, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    assert httpx2.get(fluxwerk_server + "/healthz", headers=headers).status_code == 200


def test_the_page_of_the_server_itself_may_submit(fluxwerk_server):
    headers = {**KEY, "origin": fluxwerk_server}
    assert httpx2.post(fluxwerk_server + PRO, json=SMALL, headers=headers).status_code == 200


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


def test_a_page_of_this_machine_may_ask_and_read(fluxwerk_server):
    origin = {"origin": "http://localhost:3000"}
    asked = httpx2.options(f"{fluxwerk_server}/v1/images/generations", headers=origin | PREFLIGHT)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
    made = httpx2.post(fluxwerk_server + PRO, json=SMALL, headers=KEY | origin)
    assert made.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-credentials" not in made.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_of_a_stranger_reads_nothing(fluxwerk_server, origin):
    for answer in (
        httpx2.options(f"{fluxwerk_server}/v1/images/generations", headers={"origin": origin, **PREFLIGHT}),
        httpx2.get(f"{fluxwerk_server}/v1/models", headers={"origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers


def test_an_open_server_takes_its_own_origin_only():
    async def app(_scope, _receive, _send):
        return

    check = HostCheck(app, open_=True)
    assert check._is_own("https://flux.example", "flux.example")
    assert not check._is_own("https://evil.example", "flux.example")
    assert not check._is_own("null", "flux.example")


def test_links_are_made_of_the_public_url_and_forwarded_headers_do_not_count():
    with process("--public-url", "https://flux.example:8443") as (base, _):
        headers = {**KEY, "x-forwarded-proto": "http", "x-forwarded-host": "evil.example"}
        link = httpx2.post(base + PRO, json=SMALL, headers=headers).json()["polling_url"]
    assert link.startswith("https://flux.example:8443/v1/get_result?id=")


@pytest.mark.parametrize(("options", "scheme"), [((), "http"), (("--trusted-proxy", "127.0.0.1"), "https")])
def test_a_forwarded_scheme_counts_from_a_trusted_proxy_only(options, scheme):
    with process(*options) as (base, _):
        headers = {**KEY, "x-forwarded-proto": "https"}
        link = httpx2.post(base + PRO, json=SMALL, headers=headers).json()["polling_url"]
    assert link.partition(":")[0] == scheme


@pytest.mark.parametrize("url", ["flux.example", "https://flux.example/api", "https://a@flux.example", "ftp://x"])
def test_a_public_url_that_links_cannot_be_made_of_is_refused(url):
    done = CliRunner().invoke(group, ["serve", "--public-url", url])
    assert done.exit_code == 2
    assert "--public-url" in done.stderr
