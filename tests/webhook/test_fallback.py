"""Models that take no webhook: client and batch leave it out of the submit and poll."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fluxwerk import catalog
from fluxwerk.batch import plan
from fluxwerk.batch.run import RunOptions
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.worker import Worker
from fluxwerk.client.wakeup import Wakeup
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.storage import Folder
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE, blank

REQUESTS = {
    "flux-3-image": {"images": [blank(256, 256)]},
    "flux-tools-outpainting": {"images": [blank(256, 256)], "width": 512, "height": 512},
}


class QuietListener:
    """A webhook listener that never wakes a client: every pause lasts as long as it was planned."""

    def __init__(self) -> None:
        self.options = {"webhook_url": "https://hooks.example/flux", "webhook_secret": "secret"}
        self.wakeup = Wakeup()

    def expect(self, task):
        pass


def polls(of: FaceToFace) -> int:
    return sum("/v1/get_result" in request.url for request in of.journal)


def two_clients() -> tuple[FaceToFace, FaceToFace]:
    plain, listening = FaceToFace(seconds=20), FaceToFace(seconds=20)
    listening.webhook = QuietListener()
    return plain, listening


@pytest.mark.parametrize(("name", "options"), REQUESTS.items())
def test_a_client_with_webhooks_polls_for_a_model_without_them(name, options):
    plain, listening = two_clients()
    for of in (plain, listening):
        of.generate("x", model=name, **options)

    [submit] = [request for request in listening.journal if request.method == "POST"]
    assert b"webhook" not in submit.body
    assert polls(plain) == polls(listening)


def test_a_client_with_webhooks_polls_less_for_a_model_with_them():
    plain, listening = two_clients()
    for of in (plain, listening):
        of.generate("x")

    [submit] = [request for request in listening.journal if request.method == "POST"]
    assert b"webhook_url" in submit.body
    assert polls(plain) > polls(listening)


@pytest.mark.parametrize(("name", "hooked"), [("flux-3-image", False), ("flux-2-pro", True)])
def test_a_batch_with_a_webhook_sends_it_only_to_models_that_take_it(tmp_path: Path, name, hooked):
    of, bodies = FaceToFace(), []

    async def send(request, _budget=None):
        bodies.append(request.body)
        await asyncio.sleep(0)
        return of.send(request)

    with Ledger.open(tmp_path / "a.ledger") as ledger:
        plan(ledger, [{"prompt": "a fox", "model": name}])
        inputs = Inputs(ledger.database)
        terms = RunOptions(lease=1.0, first_pause=0.01, webhook="https://hooks.example/flux", webhook_secret="secret")
        worker = Worker(
            ledger,
            send,
            BASE,
            lambda job: (catalog.get_model(job.model), inputs.fill_in(job)),
            Saver(Folder(tmp_path / "images")),
            terms,
            lambda _: None,
        )
        asyncio.run(asyncio.wait_for(worker.run(), 30))

        assert ledger.budget.sums().count(Stage.SAVED) == 1
    assert (b"webhook_url" in bodies[0]) is hooked
