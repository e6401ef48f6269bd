"""What `Client` and `AsyncClient` share: everything but driving."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from fluxwerk import catalog
from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import Model
from fluxwerk.client.credentials import read_credentials
from fluxwerk.client.image import Image, develop
from fluxwerk.client.inputs import RequestOptions, compose
from fluxwerk.client.many import Many
from fluxwerk.client.session import ALWAYS_ON, TOO_MANY_REQUESTS, Session, Switch, WebhookListener
from fluxwerk.client.slots import ClientSlots
from fluxwerk.drive import Clock
from fluxwerk.errors import InvalidUsageError, TaskFailedError
from fluxwerk.polling.history import PollingHistory, shared
from fluxwerk.polling.reliability import WebhookReliability
from fluxwerk.protocol import flow, retry
from fluxwerk.protocol.idempotency import Promises
from fluxwerk.types import Flow, HttpRequest, OnEvent, Request, Response, Status, Task

if TYPE_CHECKING:
    from typing import Unpack

    from fluxwerk.client.options import ByModel

    by_model = ByModel
else:

    def by_model(method: Callable[..., T]) -> Callable[..., T]:
        """Give a method the options of each model as types; nothing happens when the program runs."""
        return method


T = TypeVar("T")
Begin: TypeAlias = Callable[[Session], Flow[T]]
DEFAULT_MODEL = "flux-2-pro"
NOT_OPTIONS = frozenset({"model", "images", "extra", "timeout", "allow_empty_prompt"})
# `generate_many` works on this many requests beyond the slots, or on half as many as those: some are prepared and wait
# for a slot, some have left theirs and are downloaded.
SLOTS, AHEAD = 24, 16


class BaseClient:
    """The base of both clients, which drives nothing itself."""

    def __init__(
        self,
        api_key: str | None,
        region: str | None,
        base_url: str | None,
        timeout: float,
        on_event: OnEvent,
        slots: int | None,
        webhook: WebhookListener | None,
        history: PollingHistory | None,
        clock: Clock,
        delivery_hosts: Iterable[str],
    ) -> None:
        self.webhook = webhook
        self._reliability = WebhookReliability()
        self.history = history or shared()
        self.access = read_credentials(api_key, region, base_url, delivery_hosts)
        self.timeout = timeout
        self.on_event = on_event
        self.clock = clock
        if slots is not None and slots < 1:
            raise InvalidUsageError(f"slots = {slots}: must be at least 1, the number of tasks in flight at once.")
        self.slots = ClientSlots(clock.now, slots)
        self._at_a_time = (slots or SLOTS) + max(AHEAD, (slots or SLOTS) // 2)
        self._closed = threading.Event()
        # Which servers take a repeated submit for the same one.
        self.promises = Promises()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.access.base!r})"

    @by_model
    def request(self, prompt: str | None = None, **wanted: Unpack[RequestOptions]) -> Request:
        """Build and check a request without sending anything; raises `InvalidUsageError` with every fault."""
        return _compose(prompt, wanted)[1]

    def estimate(
        self,
        model: str | Model = DEFAULT_MODEL,
        width: int | None = None,
        height: int | None = None,
        inputs: Sequence[tuple[int, int]] = (),
    ) -> Decimal:
        """Estimate one image in credits without asking the service; raises `UnknownPriceError`."""
        return prices.estimate(model, width, height, inputs)

    def _beginning(self, prompt: str | Request | None, wanted: RequestOptions) -> Begin[Image]:
        return lambda session: self._generating(session, prompt, wanted)

    def _generating(self, session: Session, prompt: str | Request | None, wanted: RequestOptions) -> Flow[Image]:
        task = yield from self._submitting(session, prompt, wanted)
        return (yield from self._downloading(session, task, 0.0))

    def _submitting(self, session: Session, prompt: str | Request | None, wanted: RequestOptions) -> Flow[Task]:
        model, request = _compose(prompt, wanted)
        if self.webhook and catalog.takes_webhooks(model):
            request = replace(request, fields={**self.webhook.options, **request.fields})
        key = secrets.token_hex(16)
        steps = flow.submit(model, request, self.access.base, session.report, self.access.others, key, self.promises)
        task = yield from steps
        session.submitted(task)
        return task

    def _waiting(self, session: Session, task: Task, age: float | None = None) -> Flow[Status]:
        plan = self.history.plan(
            task,
            self.clock.now,
            self.slots.age(task) if age is None else age,
            crowded=lambda: self.slots.is_crowded(task),
            webhook=self._reliability if self.webhook and catalog.takes_webhooks(task.model) else None,
        )
        try:
            status = yield from flow.wait(task, self.access.base, session.report, plan)
        except TaskFailedError:
            session.ended(task)
            raise
        session.ended(task)
        return status

    def _downloading(self, session: Session, ready: Status | Task, age: float | None = None) -> Flow[Image]:
        status = (yield from self._waiting(session, ready, age)) if isinstance(ready, Task) else ready
        steps = flow.download(status, self.access.base, session.report, self.access.delivery_hosts)
        return develop(status, (yield from steps))

    def _note(self, request: HttpRequest, response: Response) -> Response:
        """Pass an answer on: what it promises is kept, and a poll that is refused speaks for all of them."""
        if request.keyed:
            self.promises.note(request, response)
        if response.status == TOO_MANY_REQUESTS and request.method == "GET" and request.keyed:
            asked = retry.retry_after(response.headers) or retry.FIRST_BACKOFF
            self.history.refused(self.clock.now(), min(asked, retry.LONGEST_RETRY_AFTER))
        return response

    def _session(self, task: Task | None = None, switch: Switch = ALWAYS_ON) -> Session:
        return Session(self.access.base, self.clock, self.slots, self.on_event, self.webhook, task, switch)

    def _many(self, requests: object) -> Many:
        if isinstance(requests, str | Request):
            one = "string" if isinstance(requests, str) else "Request"
            form = "[prompt]" if isinstance(requests, str) else "[request]"
            raise InvalidUsageError(f"requests must be an iterable of prompts; got one {one}. Use {form}.")
        return Many(self._at_a_time, self._closed)

    def _settle(self, wake: Callable[[], object]) -> None:
        """Let every `generate_many` under way send nothing more, and call `wake` once no submit is on its way."""
        closed, self._closed = self._closed, threading.Event()
        closed.set()
        self.slots.settle(wake)

    def _deadline(self, timeout: float | None) -> float:
        return self.clock.now() + (self.timeout if timeout is None else timeout)


def of_each(request: Request | str, wanted: RequestOptions) -> RequestOptions:
    """Take from the options of many what goes with this one: a request has its own."""
    if isinstance(request, str):
        return wanted
    mine = RequestOptions()
    if "timeout" in wanted:
        mine["timeout"] = wanted["timeout"]
    model = wanted.get("model")
    if isinstance(model, Model) and model.name == request.model:
        mine["model"] = model
    return mine


def _compose(prompt: str | Request | None, wanted: RequestOptions) -> tuple[Model, Request]:
    options = {name: value for name, value in wanted.items() if name not in NOT_OPTIONS}
    images, extra = wanted.get("images", ()), wanted.get("extra")
    if not isinstance(prompt, Request):
        model = catalog.get_model(wanted.get("model", DEFAULT_MODEL))
        blank = wanted.get("allow_empty_prompt", False)
        return model, compose(model, prompt, images=images, options=options, extra=extra, allow_empty_prompt=blank)
    if options or images or extra:
        raise InvalidUsageError(
            f"{', '.join(options) or 'images and extra'}: a request is complete. Give the options to client.request()."
        )
    return catalog.get_model(wanted.get("model", prompt.model)), prompt
