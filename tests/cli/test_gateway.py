"""`fluxwerk serve --engine upstream` as a process, in front of another server that plays the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk import Client, ModerationError
from fluxwerk.cli.gateway import account_of, read_key
from fluxwerk.cli.group import group
from fluxwerk.errors import InvalidUsageError
from fluxwerk.protocol.webhook import sign
from fluxwerk.protocol.wire import dump
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from support.process import process

UPSTREAM_KEY = "the-gateways-own-key"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{UPSTREAM_KEY}\n")
    file.chmod(0o600)
    return file


def refused(*options: object) -> str:
    done = CliRunner().invoke(group, ["serve", "--engine", "upstream", *map(str, options)], env={"BFL_API_KEY": ""})
    assert done.exit_code == 2, done.output
    return done.stderr


@contextmanager
def gateway(service: str, key_file: Path, *options: object) -> Iterator[str]:
    named = ("--upstream", service, "--upstream-key-file", key_file)
    with process("--engine", "upstream", *named, "--key", "shop", *options) as (base, _):
        yield base


def test_an_application_gets_its_image_through_the_gateway_with_its_own_key(key_file):
    accounts = Accounts([UPSTREAM_KEY], Decimal(100))
    wanted = {"width": 64, "height": 64, "seed": 5, "output_format": "webp"}
    with (
        loopback(accounts=accounts) as service,
        gateway(service, key_file) as base,
        Client("shop", base_url=base) as client,
    ):
        image = client.generate("a fox", model="flux-2-pro", **wanted)

        assert (image.width, image.height, image.content_type) == (64, 64, "image/webp")
        assert (image.seed, image.cost, image.engine) == (5, 3, "offline"), "what the service drew is no FLUX"
        assert image.task.polling_url.startswith(base)
        assert httpx2.get(f"{base}/healthz").json()["upstream"] == service
        [task] = accounts.tasks.all(0.0)
        assert task.order.asked == wanted


def test_what_the_service_moderates_is_moderated_for_the_application(key_file):
    with loopback() as service, gateway(service, key_file) as base, Client("shop", base_url=base) as client:
        with pytest.raises(ModerationError) as caught:
            client.generate("fluxwerk:content-moderated=Blood", model="flux-2-pro")

        assert (caught.value.stage, caught.value.reasons) == ("content", ("Blood",))


def test_without_the_services_key_no_gateway_starts():
    assert "needs the service's key" in refused()


def test_a_key_file_that_others_can_read_is_refused(key_file):
    key_file.chmod(0o640)
    said = refused("--upstream-key-file", key_file)

    assert "has the mode 640" in said
    assert f"chmod 600 {key_file}" in said
    assert UPSTREAM_KEY not in said


@pytest.mark.parametrize(("text", "said"), [("", "is empty"), (None, "cannot be read")])
def test_a_key_file_without_a_key_is_named(text, said, tmp_path):
    file = tmp_path / "key"
    if text is not None:
        file.write_text(text)
        file.chmod(0o600)
    with pytest.raises(InvalidUsageError, match=said):
        read_key(file)


def test_an_account_is_named_by_service_and_key_and_names_neither():
    named = {account_of(b"secret", base, key) for base in ("https://a.example", "https://b.example") for key in "xy"}
    assert len(named) == 4
    assert account_of(b"secret", "https://a.example", UPSTREAM_KEY) not in UPSTREAM_KEY
    written = ("https://a.example", "https://A.example", "https://a.example:443", "https://a.example/")
    assert len({account_of(b"secret", base, "x") for base in written}) == 1
    assert account_of(b"secret", "https://a.example:8443", "x") not in named
    assert account_of(b"another", "https://a.example", "x") not in named


@pytest.mark.parametrize("option", ["--upstream", "--upstream-key-file", "--delivery-host"])
def test_an_option_of_the_gateway_needs_its_engine(option):
    done = CliRunner().invoke(group, ["serve", option, "x"])

    assert done.exit_code == 2
    assert f"{option}: needs --engine upstream" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--public-url", "https://gateway.invalid"),
            "--public-url = 'https://gateway.invalid': needs --engine upstream",
        ),
        (("--public-url", "gateway"), "--public-url = 'gateway': must be an http or https URL without a path"),
    ],
)
def test_a_worker_needs_the_public_address_for_webhooks_of_the_service_alone(options, said, tmp_path):
    place = ("--database", "postgresql://nobody.invalid/x", "--storage", str(tmp_path))
    done = CliRunner().invoke(group, ["worker", *place, *options])

    assert done.exit_code == 2
    assert said in done.stderr


def test_an_option_of_another_engine_is_refused(key_file):
    assert "--weights: needs --engine diffusers" in refused("--upstream-key-file", key_file, "--weights", "x")


def test_at_a_public_address_the_service_announces_the_end_of_tasks(key_file):
    """The service cannot reach that address here, so the test delivers the webhook itself."""
    accounts = Accounts([UPSTREAM_KEY], Decimal(100))
    with (
        loopback(accounts=accounts, pace=lambda _: 2.0) as service,
        gateway(service, key_file, "--public-url", "https://gateway.invalid") as base,
    ):
        answer = httpx2.post(f"{base}/v1/flux-2-pro", json={"prompt": "a fox"}, headers={"x-key": "shop"}).json()
        assert answer["polling_url"].startswith("https://gateway.invalid/")
        found: list = []
        while not found:
            found = accounts.tasks.all(0.0)
        hook = found[0].webhook
        address, _, token = hook.url.rpartition("/")
        assert address == "https://gateway.invalid/v1/upstream/webhooks"
        body = dump({"id": found[0].task.id, "status": "Ready"})
        here = f"{base}/v1/upstream/webhooks"

        def deliver(where: str, secret: str) -> int:
            return httpx2.post(where, content=body, headers={"x-bfl-signature": sign(body, secret)}).status_code

        assert deliver(f"{here}/{token}", hook.secret) == 200
        assert deliver(f"{here}/{token}", "another") == 401
        assert deliver(f"{here}/guessed", hook.secret) == 404


def test_without_https_the_gateway_polls(key_file):
    accounts = Accounts([UPSTREAM_KEY], Decimal(100))
    with (
        loopback(accounts=accounts) as service,
        gateway(service, key_file, "--public-url", "http://127.0.0.1:1") as base,
    ):
        httpx2.post(f"{base}/v1/flux-2-pro", json={"prompt": "a fox"}, headers={"x-key": "shop"})
        found: list = []
        while not found:
            found = accounts.tasks.all(0.0)
    assert found[0].webhook is None
