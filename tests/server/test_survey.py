"""Images of a submit are decoded and measured beside the event loop, not on it."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import httpx2
import pytest

from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server import app as application
from fluxwerk.server import survey
from fluxwerk.server.fetch import Guard
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.types import Response
from support import images
from support.asking import PRO

LARGE = images.png(64, 64) + b"\0" * 80_000


class Watched(bytes):
    """Bytes that remember which thread looked at them first."""

    thread = 0

    def startswith(self, *what) -> bool:
        self.thread = self.thread or threading.get_ident()
        return super().startswith(*what)


def submit(image: str, fetched: bytes = b"") -> httpx2.Response:
    class Host(Guard):
        async def fetch(self, request, budget=None):
            return Response(200, {}, fetched)

    async def send() -> httpx2.Response:
        app = application.build(ServerState(Accounts(), time.time), OfflineEngine(), Host())
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://fluxwerk.test") as http:
            return await http.post(PRO, json={"prompt": "x", "input_image": image}, headers={"x-key": "key"})

    return asyncio.run(send())


def test_a_fetched_image_is_measured_beside_the_loop():
    data = Watched(LARGE)
    assert submit("https://images.example/fox.png", data).status_code in (200, 422)
    assert data.thread not in (0, threading.get_ident())


def test_a_survey_knows_the_images_of_a_body_and_the_flow_takes_them():
    text = base64.b64encode(LARGE).decode()

    async def look() -> None:
        with survey.opened() as found:
            await found.add_body(b'{"input_image": "%s", "n": 1}' % text.encode())
            data = survey.decode(text)
            assert data is found.decoded[text]
            assert data == LARGE
            assert survey.find(data) is found.findings[id(data)][1]

    asyncio.run(look())
    assert survey.decode(text) == LARGE


@pytest.mark.parametrize("body", [b"{" * 70_000, b"[" * 70_000, b'"' + b"x" * 70_000 + b'"', b"\xff" * 70_000])
def test_a_body_without_images_is_left_to_the_flow(body):
    found = survey.Survey()
    asyncio.run(found.add_body(body))
    assert (found.decoded, found.findings) == ({}, {})


def test_a_large_image_is_refused_as_a_small_one_is():
    answers = [submit(base64.b64encode(b"no image" * n).decode()) for n in (1, 20_000)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
