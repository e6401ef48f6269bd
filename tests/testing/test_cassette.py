"""A recorded conversation is replayed without a network, and holds no secret."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from fluxwerk import Client, InvalidUsageError, ModerationError
from fluxwerk.testing import Cassette
from support.images import png

KEY = "CANARY-key"
SECRET = "CANARY-webhook-secret"


def record(path, fluxwerk_server, ask):
    with Cassette(path, record=True) as cassette:
        return ask(cassette.client(api_key=KEY, base_url=fluxwerk_server))


def ask(client):
    return client.generate("a fox", width=256, height=256, seed=7)


def test_what_was_recorded_is_replayed_without_a_network(fluxwerk_server, fluxwerk_requests, tmp_path):
    real = record(tmp_path / "fox.json", fluxwerk_server, ask)
    before = len(fluxwerk_requests)
    with Cassette(tmp_path / "fox.json") as cassette:
        replayed = ask(cassette.client())
    assert replayed.data == real.data
    assert (replayed.seed, replayed.cost) == (real.seed, real.cost)
    assert len(fluxwerk_requests) == before


def test_an_asyncio_client_replays_it_too(fluxwerk_server, tmp_path):
    real = record(tmp_path / "fox.json", fluxwerk_server, ask)

    async def replay():
        async with Cassette(tmp_path / "fox.json").async_client() as client:
            return await client.generate("a fox", width=256, height=256, seed=7)

    assert asyncio.run(replay()).data == real.data


def test_an_asyncio_client_records(fluxwerk_server, tmp_path):
    async def talk():
        with Cassette(tmp_path / "fox.json", record=True) as cassette:
            async with cassette.async_client(api_key=KEY, base_url=fluxwerk_server) as client:
                return await client.generate("a fox", width=256, height=256, seed=7)

    real = asyncio.run(talk())
    assert ask(Cassette(tmp_path / "fox.json").client()).data == real.data


def test_no_secret_is_written(fluxwerk_server, tmp_path):
    def talk(client):
        hook = {"webhook_url": "http://127.0.0.1:9/hook?token=CANARY-token", "webhook_secret": SECRET}
        return client.generate("a fox", width=256, height=256, images=[png(256, 256)], **hook)

    record(tmp_path / "fox.json", fluxwerk_server, talk)
    text = (tmp_path / "fox.json").read_text()
    assert "CANARY" not in text
    assert "sig=" not in text
    assert text.count("sha256:") == 1, "an input image is kept as its hash"
    assert talk(Cassette(tmp_path / "fox.json").client()).data


def test_a_failure_is_replayed(fluxwerk_server, fluxwerk_trouble, tmp_path):
    fluxwerk_trouble(on="submit", do="moderate")
    with pytest.raises(ModerationError):
        record(tmp_path / "fox.json", fluxwerk_server, ask)
    with pytest.raises(ModerationError):
        ask(Cassette(tmp_path / "fox.json").client())


def test_another_request_than_the_recorded_one_is_named(fluxwerk_server, tmp_path):
    record(tmp_path / "fox.json", fluxwerk_server, ask)
    client = Cassette(tmp_path / "fox.json").client()
    with pytest.raises(InvalidUsageError, match=r"no further POST /v1/flux-2-pro.*Record"):
        client.submit("an owl")


def test_a_submit_is_answered_once(fluxwerk_server, tmp_path):
    record(tmp_path / "fox.json", fluxwerk_server, ask)
    client = Cassette(tmp_path / "fox.json").client()
    ask(client)
    with pytest.raises(InvalidUsageError, match="no further POST"):
        ask(client)


@pytest.mark.parametrize("text", [None, "", "[]", '{"base_url": "x", "conversation": [{}]}'])
def test_what_is_no_cassette_is_explained(text, tmp_path):
    if text is not None:
        (tmp_path / "fox.json").write_text(text)
    with pytest.raises(InvalidUsageError, match="Record it"):
        Cassette(tmp_path / "fox.json")


def test_pytest_records_and_replays(fluxwerk_server, fluxwerk_requests, tmp_path):
    (tmp_path / "test_fox.py").write_text(
        "def test_fox(fluxwerk_cassette):\n"
        "    with fluxwerk_cassette.client() as client:\n"
        "        assert client.generate('a fox', width=256, height=256, seed=7).data\n"
    )

    def run(*words):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    missing = run()
    assert missing.returncode == 1
    assert "--fluxwerk-record" in missing.stdout
    assert run("--fluxwerk-record").returncode == 0
    assert json.loads((tmp_path / "cassettes" / "test_fox.json").read_text())["base_url"] == fluxwerk_server
    before = len(fluxwerk_requests)
    assert run().returncode == 0
    assert len(fluxwerk_requests) == before


def test_the_client_that_records_is_an_ordinary_one(fluxwerk_server, tmp_path):
    with Cassette(tmp_path / "fox.json", record=True) as cassette:
        client = cassette.client()
        assert isinstance(client, Client)
        assert client.access.base == fluxwerk_server
