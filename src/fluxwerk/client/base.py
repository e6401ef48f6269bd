"""What `Client` and `AsyncClient` share: everything but driving."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from fluxwerk import catalog
from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import Model
from fluxwerk.client.books import Books, SettledDoubt
from fluxwerk.client.credentials import read_credentials
from fluxwerk.client.image import Image, develop
from fluxwerk.client.inputs import RequestOptions, compose
from fluxwerk.client.many import Many
from fluxwerk.client.session import ALWAYS_ON, TOO_MANY_REQUESTS, Session, Switch, WebhookListener
from fluxwerk.client.slots import ClientSlots
from fluxwerk.drive import Clock
from fluxwerk.errors import (
    APIStatusError,
    FluxwerkError,
    InDoubtError,
    InvalidUsageError,
    TaskFailedError,
    UnknownPriceError,
)
from fluxwerk.polling.history import PollingHistory, shared
from fluxwerk.polling.reliability import WebhookReliability
from fluxwerk.protocol import flow, retry
from fluxwerk.protocol.idempotency import Promises
from fluxwerk.protocol.witness import Verdict
from fluxwerk.types import Event, Flow, HttpRequest, OnEvent, Request, Response, Status, Task

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
ACCOUNTS = ("shared", "exclusive")
DOUBT_WORDS = ("stop", "settle", "resubmit")
# A charge may arrive late: so many seconds after a doubt its account's balance is believed, once two are equal.
WITNESS_AFTER = 120.0
STEADY = 2.0
PERHAPS_TWICE = "It is submitted again, once, as on_doubt='resubmit' asks, though both may be charged."
TWICE_FAILED = "It was submitted once more, as on_doubt='resubmit' asks, and that failed too:"
NO_EVIDENCE = (
    "There is no evidence: the server keeps no keys, and the client watches no balance. It does so with "
    "account='exclusive', unless on_doubt='resubmit'."
)
OUTCOMES = {
    True: "It was charged, as the balance proves, and its image is lost.",
    False: "It was not charged, as the balance proves.",
    None: "Of another task nobody knows what it has cost, so that the balance proves nothing.",
}


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
        account: Literal["shared", "exclusive"],
        on_doubt: Literal["stop", "settle", "resubmit"],
    ) -> None:
        if account not in ACCOUNTS:
            raise InvalidUsageError(f"account = {account!r}: must be one of {', '.join(ACCOUNTS)}.")
        if on_doubt not in DOUBT_WORDS:
            raise InvalidUsageError(f"on_doubt = {on_doubt!r}: must be one of {', '.join(DOUBT_WORDS)}.")
        self.on_doubt = on_doubt
        # What the balance of an account that nobody else uses proves; nothing where charges are risked unseen.
        self.books = Books() if account == "exclusive" and on_doubt != "resubmit" else None
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
        try:
            if self.books:
                task = yield from self._submitting_alone(session, model, request, self.books)
            else:
                task = yield from self._submit(session, model, request)
        except InDoubtError:
            if self.on_doubt == "stop":
                session.stop_buying()
            raise
        session.submitted(task)
        return task

    def _submit(self, session: Session, model: Model, request: Request) -> Flow[Task]:
        key, base, others = secrets.token_hex(16), self.access.base, self.access.others
        # The key stays the same: a server that keeps keys and has not said so yet makes one task of both.
        submit = partial(flow.submit, model, request, base, session.report, others, key, self.promises)
        try:
            return (yield from submit())
        except InDoubtError as doubt:
            if self.on_doubt != "resubmit" or not session.may_buy:
                raise
            told = flow.tell_doubt(model, doubt)
            session.report(Event("retrying", reason=f"{told} {PERHAPS_TWICE}"))
            try:
                return (yield from submit())
            except FluxwerkError as failure:
                # Whatever became of the second, the first may have been charged.
                doubt.args = (f"{told} {TWICE_FAILED} {failure}",)
                raise doubt from failure

    def _submitting_alone(self, session: Session, model: Model, request: Request, books: Books) -> Flow[Task]:
        """Submit, and let the balance settle a doubt: what was not charged is submitted again, before the deadline."""
        while True:
            if not books.is_open:
                books.open((yield from flow.ask_credits(self.access.base)))
            books.begin()
            try:
                task = yield from self._submit(session, model, request)
            except InDoubtError as doubt:
                books.doubt(doubt, _estimate(model, request))
                if self.on_doubt == "stop":
                    raise
                settled = yield from self._weighing(books, doubt)
                if settled.charged is not False:
                    doubt.args = (f"{doubt} {settled.text}",)
                    raise
                if not session.may_buy:
                    raise session.not_bought(settled.text) from doubt
                session.cleared()
                session.report(Event("retrying", reason=settled.text))
            except FluxwerkError:
                books.withdraw()
                raise
            else:
                books.accept(task)
                return task

    def _weighing(self, books: Books, doubt: InDoubtError) -> Flow[SettledDoubt]:
        """Read the balance until it stands still while nothing is in flight, and say what it proves."""
        before, after = None, WITNESS_AFTER
        try:
            while books.is_open and books.outcome(doubt) is None:
                moved = books.moved
                balance = yield from flow.ask_credits(self.access.base, after)
                said = books.weigh(balance, moved) if before == (balance, moved) else None
                if said and said.verdict is not Verdict.SETTLED:
                    return SettledDoubt(None, text=said.text)
                before, after = (balance, moved), STEADY
        except FluxwerkError as silent:
            return SettledDoubt(None, text=f"The balance could not be read while nothing moved. {silent}")
        return SettledDoubt(books.outcome(doubt), text=OUTCOMES[books.outcome(doubt)])

    def _settling(self, doubt: InDoubtError) -> Flow[SettledDoubt]:
        """Look for evidence about a doubt: the key that the server kept, then the balance."""
        seconds = self.promises.seconds(doubt.base) if doubt.key else 0.0
        if doubt.request and (seconds is None or seconds > 0):
            try:
                task = yield from flow.repeat(
                    catalog.get_model(doubt.request.model), doubt.request, doubt.base, doubt.key, self.promises
                )
            except InDoubtError:
                pass
            except APIStatusError as refusal:
                return SettledDoubt(charged=False, text=f"The server did not take it. {refusal}")
            else:
                return SettledDoubt(charged=True, task=task, text="The server kept its key, and names its task.")
        if self.books and doubt.number:
            return (yield from self._weighing(self.books, doubt))
        return SettledDoubt(None, text=NO_EVIDENCE)

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
        except TaskFailedError as failure:
            session.ended(task)
            self._book(task, failure.cost)
            raise
        session.ended(task)
        self._book(task, task.cost if status.cost is None else status.cost)
        return status

    def _book(self, task: Task, cost: Decimal | None) -> None:
        if self.books:
            self.books.end(task, cost)

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


def _estimate(model: Model, request: Request) -> Decimal | None:
    try:
        return prices.estimate_request(request, model)
    except UnknownPriceError:
        return None


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
