"""`fluxwerk serve` in a process of its own: its options, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.cli.serve import may_promise
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from support.asking import PRO
from support.process import process

SMALL = {"prompt": "x", "width": 64, "height": 64}
KEY = {"x-key": "a-key"}


def refused(*options: object) -> str:
    done = CliRunner().invoke(group, ["serve", *map(str, options)])
    assert done.exit_code == 2, done.output
    return done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--credits", "many"), "--credits"),
        (("--allow-network", "here"), "--allow-network"),
        (("--keys", "none.json"), "fluxwerk keys add NAME --file none.json"),
        (("--key", "a", "--keys", "none.json"), "exclude each other"),
        (("--trouble", "none.toml"), "cannot be read"),
        (("--dialect", "latin"), "--dialect"),
        (("--keep", "0"), "--keep"),
        (("--workers", "0"), "--workers = 0: needs --database"),
        (("--alias", "dall-e-3"), "must be NAME=MODEL"),
        (("--alias", "dall-e-3=flux-2-prow"), "did you mean 'flux-2-pro'?"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(*options)


def test_what_was_typed_wins_over_the_environment(tmp_path):
    ring = tmp_path / "keys.json"
    key = CliRunner().invoke(group, ["keys", "add", "shop", "--file", str(ring)]).stdout.strip()
    fleet = {"FLUXWERK_DATABASE": "postgresql://nobody.invalid/fluxwerk", "FLUXWERK_KEYS": "another"}
    fleet["FLUXWERK_STORAGE"] = str(tmp_path / "images of the fleet")
    with process("--state", tmp_path / "state", "--keys", ring, environment=fleet) as (base, _):
        found = [httpx2.get(f"{base}/v1/credits", headers={"x-key": one}).status_code for one in (key, "another")]
    assert found == [200, 403]
    assert not (tmp_path / "images of the fleet").exists()
    assert (tmp_path / "state" / "state.db").exists()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FLUXWERK_DATABASE", "postgresql://db/x", "--storage: is required with --database (from FLUXWERK_DATABASE)"),
        ("FLUXWERK_DATABASE", "db/x", "--database (from FLUXWERK_DATABASE) = 'db/x': must be postgresql://…"),
        ("FLUXWERK_DATABASE", "mysql://u:CANARY@db/x", "= 'mysql://…': must be postgresql://…"),
        ("FLUXWERK_STORAGE", "images", "--storage (from FLUXWERK_STORAGE) = 'images': needs --state or --database"),
    ],
)
def test_an_error_names_the_variable_that_an_option_came_from(variable, value, said, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert said in refused()


@pytest.mark.parametrize(
    "option",
    [("--engine", "upstream"), ("--weights", "w"), ("--upstream", "https://a.example"), ("--previews",)],
    ids=str,
)
def test_a_server_that_leaves_rendering_to_workers_refuses_the_options_of_engines(option):
    said = refused("--workers", 0, "--database", "postgresql://db.invalid/x", "--storage", "s", *option)
    assert f"{option[0]}: needs --workers 1" in said
    assert "fluxwerk worker" in said


def test_a_plain_http_webhook_host_is_compared_without_case():
    """A host that may get webhooks by plain http may be written in any case."""
    with process("--allow-http-webhook", "Me.Invalid") as (base, _):
        for url, status in (("http://ME.invalid/", 200), ("http://you.invalid/", 422)):
            assert httpx2.post(base + PRO, json={**SMALL, "webhook_url": url}, headers=KEY).status_code == status


def test_an_alias_is_a_name_at_the_doors():
    with process("--alias", "dall-e-3=flux-2-klein-4b") as (base, _):
        body = {"model": "dall-e-3", "prompt": "x", "size": "64x64"}
        made = httpx2.post(f"{base}/v1/images/generations", json=body, headers={"authorization": "Bearer a-key"})
    assert made.headers["x-fluxwerk-cost"] == "1.4"


def test_a_port_that_is_taken_is_named(fluxwerk_server):
    assert "cannot listen on" in refused("--port", fluxwerk_server.rpartition(":")[2])


def test_the_guides_dialect_trouble_and_keys_of_a_file(tmp_path):
    script, ring = tmp_path / "trouble.toml", tmp_path / "keys.json"
    script.write_text('[[rule]]\non = "submit"\ndo = "reset"\nprompt = "lost"\n')
    key = CliRunner().invoke(group, ["keys", "add", "shop", "--file", str(ring), "--credits", "3"]).stdout.strip()
    options = ("--dialect", "guide", "--trouble", script, "--keys", ring)
    with process(*options) as (base, running):
        assert httpx2.post(base + PRO, json=SMALL, headers=KEY).status_code == 401
        assert httpx2.post(base + PRO, json={}, headers={"x-key": key}).status_code == 400
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            httpx2.post(base + PRO, json={**SMALL, "prompt": "lost"}, headers={"x-key": key})
        assert httpx2.post(base + PRO, json=SMALL, headers={"x-key": key}).status_code == 200
        assert httpx2.post(base + PRO, json=SMALL, headers={"x-key": key}).json()["error"] == "insufficient_credits"
        running.send_signal(signal.SIGINT)
        running.wait(timeout=20)
        assert "Trouble on demand: 1 rule." in running.stderr.read()


def test_sigterm_finishes_what_was_accepted_and_accepts_nothing_more():
    with process("--seconds", "1.5", "--drain", "20") as (base, running):
        task = httpx2.post(base + PRO, json=SMALL, headers=KEY).json()
        running.send_signal(signal.SIGTERM)
        while httpx2.get(base + "/healthz").json()["status"] != "closing":
            pass
        refused_ = httpx2.post(base + PRO, json=SMALL, headers=KEY)
        assert (refused_.status_code, refused_.json()["error"]) == (503, "closing")
        while (body := httpx2.get(task["polling_url"]).json())["status"] == "Pending":
            pass
        assert httpx2.get(body["result"]["sample"]).status_code == 200
        assert running.wait(timeout=20) == 0


def test_the_state_is_closed_when_the_server_ends(tmp_path):
    for _ in range(2):
        with process("--state", tmp_path / "state", "--allow-network", "127.0.0.0/8") as (base, running):
            assert httpx2.post(base + PRO, json=SMALL, headers=KEY).status_code == 200
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=20) == 0


def test_a_mistake_of_the_server_is_a_500_in_json_that_tells_nothing():
    class Spilt(Accounts):
        def accounts_of(self, _):
            raise RuntimeError("CANARY")

    async def ask() -> httpx2.Response:
        app = application.build(ServerState(Spilt(), lambda: 0.0), OfflineEngine())
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            return await http.get("/v1/credits", headers=KEY)

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "CANARY" not in answer.text


def test_a_server_lives_whatever_its_state_does():
    class Spilt(Accounts):
        def accounts_of(self, _):
            raise RuntimeError

    async def ask() -> httpx2.Response:
        app = application.build(ServerState(Spilt(), lambda: 0.0), OfflineEngine())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            return await http.get("/livez", headers=KEY)

    assert asyncio.run(ask()).json() == {"status": "live"}


def test_a_body_that_announces_too_much_is_refused_before_it_is_read():
    async def ask(length: str) -> httpx2.Response:
        app = application.build(ServerState(Accounts(), lambda: 0.0), OfflineEngine())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            return await http.post(PRO, content=json.dumps(SMALL), headers={**KEY, "content-length": length})

    for length in (str(301 * 2**20), "9" * 5000):
        assert asyncio.run(ask(length)).status_code == 413


def test_a_strict_server_refuses_a_misspelt_field():
    with process("--strict") as (base, _):
        answer = httpx2.post(base + PRO, json={**SMALL, "sed": 1}, headers=KEY)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "unknown_field")


def test_a_gateway_that_forgets_what_it_bought_promises_to_keep_no_keys():
    assert not may_promise("upstream", None)
    assert may_promise("upstream", "state")
    assert may_promise("offline", None)
