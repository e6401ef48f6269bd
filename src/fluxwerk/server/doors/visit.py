"""One request at a door: what it asks of this server's own API in its client's name, and the tasks that came of it.

Each step is a flow, as those of the client are, and the server answers its calls in process: no door holds a thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from fluxwerk import catalog, imagefile
from fluxwerk.catalog.rows import Model
from fluxwerk.errors import FluxwerkError, UnknownModelError
from fluxwerk.imagefile import Raster
from fluxwerk.protocol import flow, wire
from fluxwerk.protocol.idempotency import KEY_HEADER, read_promise
from fluxwerk.server.doors import refusal
from fluxwerk.server.doors.form import Form
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.server.doors.room import Room
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.accounts import digest_of
from fluxwerk.types import Call, Flow, HttpRequest, Json, Outcome, Request, Response, Status, Task

BUSY = 429
# What a client may send to its submits through a door.
HANDED_ON = ("traceparent", "tracestate", "x-fluxwerk-priority")
# Seconds between two polls of a task: few at first, for engines that answer at once.
FIRST_POLL, GROWTH, LONGEST_POLL = 0.02, 1.5, 0.5
# The model of a client that names none, if the engine serves it.
USUAL = "flux-2-pro"
# What paints inside a mask.
FILL = "flux-pro-1.0-fill"

# Takes a preview of an image that is being made, as a data URI.
OnPreview = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image that a door hands out: its bytes, what the last poll said, and the remarks about its request."""

    data: bytes = field(repr=False)
    status: Status
    remarks: str = ""

    @property
    def raster(self) -> Raster:
        """Type and size, which every image has that was downloaded whole."""
        found = imagefile.measure(self.data)
        assert found is not None
        return found


@dataclass(slots=True)
class Visit:
    """One request at a door.

    `request` has the key where this server reads it, `began` is when it came in seconds since 1970, and `show` sends a
    part of a streamed answer.  `running` holds the tasks to give up if the client goes, with the share of each that is
    done; `preview` is the last one of any, as a data URI.  A visit that `may_be_repeated` finds its tasks again.
    """

    request: ServerRequest
    form: Form
    room: Room[Visit]
    began: float
    show: Callable[[bytes], None] = lambda _: None
    running: dict[str, float] = field(default_factory=dict[str, float])
    preview: str = ""
    interrupted: bool = False
    may_be_repeated: bool = False
    remarks: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def account(self) -> str:
        """The account, without its key."""
        return digest_of(self.request.key)

    def shares(self) -> list[float]:
        """Say how much is done of each task that runs."""
        return list(self.running.values())

    def ask(self, method: str, path: str, body: bytes = b"", extra: Mapping[str, str] | None = None) -> Flow[Response]:
        """Ask this server in the client's name; raises `RefusedError`."""
        handed_on = {name: self.request.headers[name] for name in HANDED_ON if name in self.request.headers}
        headers = {"x-key": self.request.key, **handed_on, **(extra or {})}
        return refusal.check((yield Call(HttpRequest(method, f"{self.request.origin}{path}", body, headers=headers))))

    def served(self) -> Flow[list[str]]:
        """Name the models that are served now."""
        return names_served(json.loads((yield from self.ask("GET", "/v1/models")).body))

    def model(self, name: Json) -> Flow[Model]:
        """Find the model that a client means by a name of ours or an alias; without a name the usual one."""
        served = yield from self.served()
        if not name:
            name = USUAL if USUAL in served else served[0]
        try:
            return catalog.get_model(self.room.aliases.get(str(name), str(name)))
        except UnknownModelError:
            known = ", ".join([*self.room.aliases, *served])
            text = (
                f"This server has no model {str(name)[:100]!r}. It has {known}. "
                f"Name one of them, or start the server with --alias {str(name)[:100]}={USUAL}."
            )
            raise RefusedError(404, "model_not_found", text, field="model") from None

    def make(
        self, model: Model, bodies: Sequence[Mapping[str, Json]], on_preview: OnPreview = lambda _: None
    ) -> Flow[list[Status]]:
        """Have one image made of each body, and return those that became ready.

        Raises `RefusedError` if none did: what was made is never thrown away for what was not.
        """
        tasks: list[Task] = []
        ready: dict[str, Status] = {}
        endings: list[FluxwerkError] = []

        def settle(task: Task) -> Flow[None]:
            if task.id not in self.running:
                return
            status = yield from self._wait(task, on_preview)
            ending = wire.read_ending(status)
            if ending:
                endings.append(ending)
            else:
                ready[task.id] = status

        for number, body in enumerate(bodies):
            while True:
                try:
                    tasks.append((yield from self._submit(model, body, number)))
                    break
                except RefusedError as refused:
                    # Where its own tasks hold the slots, the request waits for them.
                    held = next((task for task in tasks if task.id in self.running), None)
                    if refused.status != BUSY or held is None:
                        raise
                    yield from settle(held)
        # Whatever is refused after this is told within the stream.
        self.show(b"")
        for task in tasks:
            yield from settle(task)
        if not ready:
            raise refusal.of_ending(endings[0])
        return [ready[task.id] for task in tasks if task.id in ready]

    def fetch(self, status: Status) -> Flow[MadeImage]:
        """Fetch the image of a task that is ready."""
        data = yield from flow.download(status, self.request.origin)
        return MadeImage(data, status, self.remarks.get(status.task.id, ""))

    def give_up(self) -> Flow[None]:
        """Cancel what still runs, since nobody will fetch it."""
        for task in list(self.running):
            url = f"{self.request.origin}/v1/tasks/{task}"
            yield Call(HttpRequest("DELETE", url, headers={"x-key": self.request.key}))

    def _submit(self, model: Model, body: Mapping[str, Json], number: int) -> Flow[Task]:
        http = wire.write_submit(model, Request(model.name, body), self.request.origin)
        once = self.request.headers.get(KEY_HEADER)
        extra = {KEY_HEADER: f"{once}:{number}"} if once else {}
        response = yield from self.ask("POST", http.url.removeprefix(self.request.origin), http.body, extra)
        task = wire.read_task(response, model.name, self.request.origin)
        self.may_be_repeated = bool(once) and read_promise(response) > 0
        self.running[task.id] = 0.0
        self.remarks[task.id] = response.headers.get("x-fluxwerk-warning", "")
        return task

    def _wait(self, task: Task, on_preview: OnPreview) -> Flow[Status]:
        pause, last = FIRST_POLL, None
        while True:
            response = yield Call(wire.write_poll(task), pause)
            pause = min(pause * GROWTH, LONGEST_POLL)
            try:
                status = wire.read_status(response, task)
            except ValueError:
                # A fault on purpose; the task goes on.
                continue
            if status.outcome is not Outcome.RUNNING:
                self.running.pop(task.id, None)
                return status
            self.running[task.id] = status.progress or 0.0
            preview = cast("dict[str, Json]", json.loads(response.body)).get("preview")
            if preview and preview != last:
                last = preview
                self.preview = cast("dict[str, Json]", preview)["image"]
                on_preview(self.preview)


def names_served(listed: Mapping[str, Json]) -> list[str]:
    """Name the models of a list that are served now, or all of them while none is: workers come back."""
    rows = listed["models"]
    return [row["name"] for row in rows if row["served"]] or [row["name"] for row in rows]
