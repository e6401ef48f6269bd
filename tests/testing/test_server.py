"""The server of other people's tests: requests to assert on, trouble on demand, a clock to turn."""

from __future__ import annotations

import os
import unittest.mock

import httpx2
import pytest

from fluxwerk import AuthenticationError, Client, InvalidRequestError, ModerationError
from fluxwerk.testing import local_server


@pytest.fixture
def client(fluxwerk_server):
    with Client() as opened:
        yield opened


def test_a_client_without_arguments_finds_the_server(client, fluxwerk_server):
    assert client.access.base == fluxwerk_server
    assert client.generate("a fox", width=256, height=256).seed is not None


def test_the_requests_of_a_test_can_be_read(client, fluxwerk_requests):
    client.generate("a fox", model="flux-2-max", width=256, height=256)
    submit = fluxwerk_requests[0]
    assert (submit.method, submit.path, submit.status) == ("POST", "/v1/flux-2-max", 200)
    assert (submit.model, submit.prompt, submit.fields["width"]) == ("flux-2-max", "a fox", 256)
    assert {one.model for one in fluxwerk_requests[1:]} == {""}


def test_no_request_of_an_earlier_test_is_left(fluxwerk_requests):
    assert fluxwerk_requests == []


def test_a_request_of_a_door_names_its_model(fluxwerk_server, fluxwerk_requests):
    body = {"model": "flux-2-klein-4b", "prompt": "a fox"}
    headers = {"authorization": "Bearer any-key"}
    httpx2.post(f"{fluxwerk_server}/v1/images/generations", json=body, headers=headers).raise_for_status()
    assert [(one.model, one.prompt) for one in fluxwerk_requests] == [("flux-2-klein-4b", "a fox")]


def test_a_key_is_not_kept(fluxwerk_requests):
    with Client("a-canary-key") as client:
        client.credits()
    assert "a-canary-key" not in repr(fluxwerk_requests)


def test_trouble_comes_when_it_is_asked_for(client, fluxwerk_trouble):
    client.credits()
    fluxwerk_trouble(on="submit", do="moderate")
    with pytest.raises(ModerationError):
        client.generate("a fox", width=256, height=256)
    fluxwerk_trouble.clear()
    client.generate("a fox", width=256, height=256)


def test_trouble_of_an_earlier_test_is_over(client):
    assert client.generate("a fox", width=256, height=256).width == 256


def test_a_connection_can_break_though_the_server_began_without_trouble(fluxwerk_server, fluxwerk_trouble):
    fluxwerk_trouble(on="poll", do="reset", first=1)
    events = []
    with Client(on_event=events.append) as client:
        client.generate("a fox", width=256, height=256)
    assert "retrying" in {event.kind for event in events}


def test_a_link_expires_without_waiting(client, fluxwerk_clock):
    status = client.wait(client.submit("a fox", width=256, height=256))
    assert httpx2.get(status.url).status_code == 200
    fluxwerk_clock.turn(601)
    assert httpx2.get(status.url).status_code == 403
    # The client asks for another link.
    assert client.download(status).data


def test_the_clock_of_an_earlier_test_is_turned_back(fluxwerk_clock):
    assert fluxwerk_clock.turned == 0.0


@pytest.mark.parametrize("fluxwerk_server", [{"strict": True}], indirect=True)
def test_a_strict_server_refuses_what_the_service_ignores(client, fluxwerk_requests):
    with pytest.raises(InvalidRequestError):
        client.generate("a fox", extra={"negative_prompt": "dogs"})
    assert fluxwerk_requests[-1].status == 422


def test_a_server_of_ones_own_needs_no_pytest():
    with local_server() as server, unittest.mock.patch.dict(os.environ, server.environment), Client() as client:
        client.submit("a fox", width=256, height=256)
        assert [one.prompt for one in server.submits] == ["a fox"]
        server.forget()
        assert server.requests == []


def test_a_request_that_is_refused_is_no_submit(client, fluxwerk_requests, fluxwerk_trouble):
    fluxwerk_trouble(on="submit", do="status", status=403)
    with pytest.raises(AuthenticationError):
        client.submit("a fox", width=256, height=256)
    assert [one.status for one in fluxwerk_requests] == [403]
