"""A ledger, a folder and a server in one thread, for the tests of a run; what passes between them can be changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluxwerk import catalog
from fluxwerk.batch import plan
from fluxwerk.batch.run import RunEnd, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.batch.worker import Worker
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.protocol import wire
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.storage import Folder
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE
from fluxwerk.types import HttpRequest, Response

QUICK = RunOptions(lease=1.0, first_pause=0.01)
Intercept = Callable[[HttpRequest, Callable[[], Response]], Response]


def honest(_: HttpRequest, answer: Callable[[], Response]) -> Response:
    return answer()


class Keeping:
    """A saver whose save is one function, and whose place can always be written."""

    def __init__(self, save: Callable[..., Saved]) -> None:
        self.save = save

    def check(self) -> None:
        pass

    def check_job(self, job: Job) -> None:
        pass


class Site:
    """A ledger, a folder, and a server in the same thread whose requests can be intercepted."""

    def __init__(
        self, folder: Path, jobs: int = 0, books: Accounts | None = None, *, keeps_keys: bool = False, **options: Any
    ) -> None:
        self.face = FaceToFace(accounts=books, keeps_keys=keeps_keys)
        self.path = folder / "a.ledger"
        self.ledger = Ledger.open(self.path)
        self.keep: Any = Saver(Folder(folder / "images"))
        self.progress: list[RunProgress] = []
        self.intercept: Intercept = honest
        self.requests: list[HttpRequest] = []
        self.worker: Worker | None = None
        self.on_progress: Callable[[RunProgress], None] = lambda _: None
        if jobs:
            rows = [{"prompt": f"image {number}", "width": 64, "height": 64, **options} for number in range(jobs)]
            plan(self.ledger, rows)

    async def send(self, request: HttpRequest, _budget: float | None = None) -> Response:
        self.requests.append(request)
        await asyncio.sleep(0)
        return self.intercept(request, lambda: self.face.send(request))

    def build(self, options: RunOptions = QUICK, ledger: Ledger | None = None, base: str = BASE) -> Worker:
        opened = ledger or self.ledger
        inputs = Inputs(opened.database)

        def report(progress: RunProgress) -> None:
            self.progress.append(progress)
            self.on_progress(progress)

        def prepare(job: Job) -> Any:
            return catalog.get_model(job.model), inputs.fill_in(job)

        saver = self.keep if isinstance(self.keep, Saver) else Keeping(self.keep)
        self.worker = Worker(opened, self.send, base, prepare, saver, options, report)
        return self.worker

    def run(self, options: RunOptions = QUICK, base: str = BASE) -> str:
        return self.end(options, base).text

    def end(self, options: RunOptions = QUICK, base: str = BASE) -> RunEnd:
        return asyncio.run(asyncio.wait_for(self.build(options, base=base).run(), 30))

    def count(self, *stages: Stage) -> int:
        return self.ledger.budget.sums().count(*stages)

    def kinds(self) -> list[str]:
        return [progress.kind for progress in self.progress]

    @property
    def submits(self) -> list[HttpRequest]:
        return [request for request in self.requests if request.method == "POST"]

    @property
    def accepted(self) -> list[Any]:
        return self.face.state.tasks.all(self.face.clock.now())


def first_times(count: int, response: Response | Exception) -> Intercept:
    """Answer the first submits in another way."""
    left = [response] * count

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if request.method != "POST" or not left:
            return answer()
        instead = left.pop()
        if isinstance(instead, Exception):
            raise instead
        return instead

    return intercept


def refusal(status: int, retry_after: int | None = None) -> Response:
    return wire.write_refusal(status, "no", error="no", message="no", retry_after=retry_after)
