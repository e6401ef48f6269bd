"""HTTP requests to a service on a pretend clock, as any client might send them, with no help from ours."""

from __future__ import annotations

import json

from fluxwerk.drive import drive
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE
from fluxwerk.types import HttpRequest, Response

PRO = "/v1/flux-2-pro"


class Broken:
    name = "broken"

    def render(self, _):
        raise RuntimeError("no paint left")


def face(**how) -> FaceToFace:
    return FaceToFace(**how)


def ask(
    of: FaceToFace, method: str, url: str, body: object = None, key: str | None = "key", **headers: str
) -> Response:
    """Send one HTTP request, headers in lower case."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers |= {} if key is None else {"x-key": key}
    request = HttpRequest(method, url if "://" in url else BASE + url, data, headers=headers)
    return drive(of.router.answer(request), of._fetch, clock=of.clock)


def post(of: FaceToFace, body: object, path: str = PRO, key: str | None = "key") -> Response:
    return ask(of, "POST", path, body, key)


def json_of(response: Response) -> dict:
    return json.loads(response.body)


def poll(of: FaceToFace, submitted: Response, key: str | None = None) -> dict:
    return json_of(ask(of, "GET", json_of(submitted)["polling_url"], key=key))


def fault(response: Response) -> tuple[int, list, str]:
    entry = json_of(response)["detail"][0]
    return response.status, entry["loc"], entry["msg"]


def size_of(of: FaceToFace, submitted: Response) -> tuple[int, int]:
    order = kept(of.state)[json_of(submitted)["id"]].order
    return order.width, order.height


def submit_and_fetch(of: FaceToFace) -> tuple[str, Response]:
    url = poll(of, post(of, {"prompt": "x"}))["result"]["sample"]
    return url, ask(of, "GET", url, key=None)


def kept(state: ServerState) -> dict[str, TaskRecord]:
    """Return every task that a server keeps, by its id and the oldest first."""
    return {job.task.id: job for job in state.tasks.all(state.clock())}
