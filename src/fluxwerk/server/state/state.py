"""What the server knows, and how a task moves on: accepted, rendered, ended, reported to its webhook.

Everything above reads this state and calls its moves; it knows nothing of HTTP paths, FastAPI or the engine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from fluxwerk import catalog, imagefile
from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Abilities, FullAbilities, Order, RenderProgress
from fluxwerk.errors import StorageError
from fluxwerk.server.errors import Dialect, ServerError
from fluxwerk.server.faults import endings
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.faults.rules import FaultRule, Faults, Occasion, scripted
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import keys, links, sessions, webhooks
from fluxwerk.server.state.accounts import Account, Accounts, TaskRecord, is_well_formed
from fluxwerk.server.state.metrics import Metrics
from fluxwerk.server.state.webhooks import WebhookPolicy
from fluxwerk.types import Flow, Json

Pace = Callable[[Order], float]
# Bytes of UTF-8; the longest prompt that a model reads is far shorter.
LONGEST_PROMPT = 32 * 1024
RETRY_STORAGE = 30
# Seconds between two lines of the log about the same disk.
LOG_EVERY = 60.0

log = logging.getLogger("fluxwerk.server")


class TaskListener(Protocol):
    """Does the work that follows from a task's moves: renders it, cancels it, delivers its webhook."""

    def accepted(self, job: TaskRecord) -> None:
        """Take a task that an engine is to render."""
        ...

    def cancelled(self, job: TaskRecord) -> None:
        """Take a task that the engine is to stop."""
        ...

    def ended(self, job: TaskRecord) -> None:
        """Take a task that has an ending, which is shown from its `ready_at` on."""
        ...


class ServerState:
    """Accounts, tasks, limits, counts and link signing of one server.

    `clock` tells the time in seconds since 1970, `entropy(n)` gives n unguessable bytes, `pace` is the least number of
    seconds a task takes, `engine` is the name given with each image, and `abilities` describe the engine.  `policy`
    says where webhooks may go, `trouble` is scripted misbehaviour, and with `magic` a prompt may ask for an ending.
    Links are signed with `secret` and live for `url_life` seconds.  A `strict` server refuses what the live one
    ignores.  A prompt has at most `longest_prompt` bytes.  A server that `keeps_keys` takes a submit that is repeated
    with its Idempotency-Key for the same one; the live service does not.  Once it `is_closing`, the server accepts
    nothing.
    """

    def __init__(
        self,
        accounts: Accounts,
        clock: Callable[[], float],
        *,
        engine: str = "offline",
        abilities: Abilities | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        pace: Pace = lambda _: 0.0,
        url_life: float = links.LIFE,
        secret: bytes | None = None,
        dialect: Dialect = "live",
        policy: WebhookPolicy | None = None,
        trouble: Faults | Iterable[FaultRule] = (),
        magic: bool = True,
        strict: bool = False,
        longest_prompt: int = LONGEST_PROMPT,
        keeps_keys: bool = True,
    ) -> None:
        self.accounts = accounts
        self.clock = clock
        self.engine = engine
        self.abilities = abilities or FullAbilities()
        self.entropy = entropy
        self.pace = pace
        self.url_life = url_life
        self.secret = entropy(32) if secret is None else secret
        self.dialect: Dialect = dialect
        self.policy = policy or WebhookPolicy()
        self.strict = strict
        self.longest_prompt = longest_prompt
        self.keeps_keys = keeps_keys
        self.faults = scripted(trouble)
        self.metrics = Metrics()
        # Submits with an idempotency key that are still being read: the account's digest and the key.
        self.submitting: set[tuple[str, str]] = set()
        self.models: Mapping[str, Model] = {
            path: model for model in catalog.list_models().values() for path in model.paths()
        }
        self._magic = magic
        self._closing = False
        # Why the last write failed, and when the log said so; `None` while the storage takes what it is given.
        self.storage_error: str | None = None
        self._storage_logged: float | None = None
        self._listeners: list[TaskListener] = []

    @property
    def is_closing(self) -> bool:
        """Whether the server accepts nothing more."""
        return self._closing

    def close(self) -> None:
        """Accept nothing more; tasks that were accepted still move on."""
        self._closing = True

    def subscribe(self, listener: TaskListener) -> Callable[[], None]:
        """Report every move to a listener; returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def authenticate(self, request: ServerRequest) -> Account:
        """Find the account of the request's key, or else of its browser's session; raises `ServerError`."""
        if not request.key:
            visitor = sessions.visitor(self.secret, request, self.clock())
            account = visitor and self.accounts.account_of(visitor)
            if account:
                return account
            raise ServerError("no_key", "Send your key in the header x-key.", detail="Not authenticated")
        if not is_well_formed(request.key):
            raise ServerError("malformed_key", "Invalid API key format")
        account = self.accounts.account(request.key)
        if account is None:
            detail = "Not authenticated - Invalid Authentication"
            wrong = "is mistyped: its checksum is wrong" if keys.is_mistyped(request.key) else "is unknown or revoked"
            raise ServerError("unknown_key", f"This key {wrong}.", detail=detail)
        return account

    def accept(self, job: TaskRecord, rule: FaultRule | None = None) -> None:
        """Book a task and have it rendered, unless its prompt or a rule decides how it ends."""
        if not self._kept(lambda: self.accounts.accept(job)):
            text = "The server cannot keep tasks now, because its disk cannot be written. Nothing was charged."
            raise ServerError("storage", text, retry_after=RETRY_STORAGE)
        self._start(job, rule)

    def resume(self) -> None:
        """Take up what another process left: tasks without an end, and webhooks that were not delivered."""
        for job in self.accounts.waiting():
            if job.inputs_lost:
                self.conclude(job, endings.INPUTS_LOST)
            else:
                self._start(job)
        for job in list(self.accounts.jobs.values()):
            if job.webhook and job.webhook.state == "pending":
                job.webhook.state = "waiting"
            if job.ready_at is not None:
                self._report("ended", job)

    def advance(self, job: TaskRecord, progress: RenderProgress) -> None:
        """Record how far the engine is with a task that has not ended."""
        if job.ready_at is None:
            job.began = self.clock() if job.began is None else job.began
            job.progress, job.preview = progress.share, progress.preview

    def finish(self, job: TaskRecord, image: bytes) -> None:
        """Keep the image that an engine made for a task."""
        if job.ready_at is not None:
            return
        now = self.clock()
        self.metrics.rendered(now - (job.accepted if job.began is None else job.began))
        # A full disk keeps nothing, but the image is in memory: it can be reported and fetched.
        self._kept(lambda: self.accounts.finish(job, image, max(now, job.accepted + self.pace(job.order))))
        self._ended(job)

    def fail(self, job: TaskRecord, reason: str) -> None:
        """End a task whose image the engine could not make, and return its credits."""
        self.conclude(job, Ending("Error", {"error": reason}))

    def cancel(self, job: TaskRecord) -> None:
        """End a task at its owner's wish, and stop the engine."""
        self.conclude(job, endings.CANCELLED)
        self._report("cancelled", job)

    def conclude(self, job: TaskRecord, ending: Ending, at: float | None = None) -> None:
        """End a task without an image, now or at a moment; a task that has ended stays as it is."""
        if job.has_ended(self.clock()):
            return
        self._kept(lambda: self.accounts.end(job, ending, self.clock() if at is None else at))
        if ending.word:
            self._ended(job)

    def result(self, job: TaskRecord, origin: str, now: float, life: float | None = None) -> Json:
        """Write what was made, with a link signed at this moment that lives for `life` seconds."""
        where = links.path(job.folder, job.order.output_format)
        until = now + (self.url_life if life is None else life)
        ended = job.ready_at or now
        return {
            "sample": f"{origin}{where}?{links.sign(self.secret, where, content_type(job), until)}",
            "prompt": job.order.prompt,
            "seed": job.order.seed,
            "start_time": job.accepted,
            "end_time": ended,
            "duration": round(ended - job.accepted, 6),
            "engine": self.engine,
        }

    def delivery(self, job: TaskRecord) -> Flow[None] | None:
        """Return the flow that delivers a task's webhook, if one is due and no other flow delivers it."""
        webhook, now = job.webhook, self.clock()
        if webhook is None or webhook.state != "waiting" or not job.has_ended(now):
            return None
        made = self.result(job, job.task.polling_url.partition("/v1/")[0], now) if job.word == "Ready" else None
        body = webhooks.write_body(job, made, job.ready_at or now)

        def saved() -> None:
            self._kept(lambda: self.accounts.note(job))
            if webhook.state != "pending":
                self.metrics.webhooks[webhook.state] += 1

        def meet() -> FaultRule | None:
            return self.faults.meet(occasion("webhook", job))

        return webhooks.deliver(webhook, body, self.policy, self.clock, saved=saved, meet=meet)

    def _start(self, job: TaskRecord, rule: FaultRule | None = None) -> None:
        self.metrics.accepted[job.model.name] += 1
        decided = _decided(rule) or (endings.asked_for(job.order.prompt) if self._magic else None)
        if decided is None:
            self._report("accepted", job)
        else:
            self.conclude(job, decided, self.clock() + self.pace(job.order))

    def check_storage(self) -> bool:
        """Whether tasks can be kept; after a failed write the storage is tried again."""
        return self.storage_error is None or self._kept(self.accounts.probe)

    def forget(self) -> float:
        """Drop the tasks whose images were kept long enough, and return the moment."""
        now, before = self.clock(), self.storage_error
        # Nothing may have been written, so success proves nothing about the storage.
        if self._kept(lambda: self.accounts.forget(now)):
            self.storage_error = before
        return now

    def _kept(self, write: Callable[[], None]) -> bool:
        """Write to the storage; a failure is kept for `/healthz` and logged once a minute."""
        try:
            write()
        except StorageError as error:
            self.storage_error = str(error)
            now = self.clock()
            if self._storage_logged is None or now - self._storage_logged >= LOG_EVERY:
                self._storage_logged = now
                log.warning("%s Free some space; submits are refused with 503 until it can be written.", error)
            return False
        self.storage_error = None
        return True

    def _ended(self, job: TaskRecord) -> None:
        self.metrics.ended[job.word] += 1
        self._report("ended", job)

    def _report(self, move: str, job: TaskRecord) -> None:
        for listener in tuple(self._listeners):
            match move:
                case "accepted":
                    listener.accepted(job)
                case "cancelled":
                    listener.cancelled(job)
                case _:
                    listener.ended(job)


def content_type(job: TaskRecord) -> str:
    """Name the content type of a task's image."""
    return next(kind for kind, suffix in imagefile.SUFFIX.items() if suffix == job.order.output_format)


def occasion(place: str, job: TaskRecord | None) -> Occasion:
    """Describe where a fault may strike, as far as the task is known."""
    if job is None:
        return Occasion(place)
    return Occasion(place, job.order.prompt, job.model.name, job.task.id)


def _decided(rule: FaultRule | None) -> Ending | None:
    match rule.do if rule else "":
        case "moderate":
            return endings.moderated(rule.stage, rule.reasons) if rule else None
        case "fail":
            return endings.failed()
        case "stick":
            return endings.FOREVER
        case _:
            return None
