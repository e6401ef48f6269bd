"""What the server knows, and how a task moves on: accepted, rendered, ended, reported to its webhook.

Everything above reads this state and calls its moves; it knows nothing of HTTP paths, FastAPI or the engine.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from fluxwerk import catalog, imagefile
from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Abilities, FullAbilities, Health, Order, RenderProgress
from fluxwerk.errors import Fault, StorageError
from fluxwerk.ledger.database import DatabaseError, UnknownCommitError
from fluxwerk.server.errors import Dialect, ServerError
from fluxwerk.server.faults import endings
from fluxwerk.server.faults.endings import Ending
from fluxwerk.server.faults.rules import FaultRule, Faults, Occasion, scripted
from fluxwerk.server.inquiry import AskingFlow, ask, result_of
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state import keys, links, sessions, webhooks
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.accounts import Accounts, digest_of, is_well_formed
from fluxwerk.server.state.booking import Booking
from fluxwerk.server.state.cache import Answers
from fluxwerk.server.state.condition import StorageCondition
from fluxwerk.server.state.files import TaskFiles
from fluxwerk.server.state.fleet import FleetStore
from fluxwerk.server.state.metrics import Metrics
from fluxwerk.server.state.queue import Slots
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.tasks import input_files
from fluxwerk.server.state.webhooks import WebhookPolicy
from fluxwerk.types import Flow, Json

Pace = Callable[[Order], float]
# Bytes of UTF-8; the longest prompt that a model reads is far shorter.
LONGEST_PROMPT = 32 * 1024
RETRY_STORAGE = 30
# What is said of an image whose engine was not written down: a release before this one finished it.
UNKNOWN_ENGINE = "unknown"
# The health of a fleet in which nobody renders.
NO_WORKER = "no_worker"
# Seconds between two looks for tasks that were kept long enough.
SWEEP_EVERY = 1.0
# No refusal, since the task may be there after all: a client that cares looks at its list.
UNKNOWN = "The state failed while this was written down; what was asked for may or may not have been done."

log = logging.getLogger("fluxwerk.server")


class TaskListener(Protocol):
    """Does the work that follows from a task's moves: renders it, cancels it, delivers its webhook."""

    def accepted(self, job: TaskRecord, /) -> None:
        """Take a task that an engine is to render."""
        ...

    def cancelled(self, job: TaskRecord, /) -> None:
        """Take a task that the engine is to stop."""
        ...

    def ended(self, job: TaskRecord, /) -> None:
        """Take a task that has an ending, which is shown from its `ready_at` on."""
        ...

    def resumed(self) -> None:
        """Take up tasks that wait and webhooks that are owed since another process had the state."""
        ...


class ServerState:
    """Accounts, tasks, limits, counts and link signing of one server.

    `clock` tells the time in seconds since 1970, `entropy(n)` gives n unguessable bytes, `pace` is the least number of
    seconds a task takes, `engine` is that of this process, `None` where only others render, and `abilities` describe
    it.  `policy` says where webhooks may go, `trouble` is scripted misbehaviour, and with `magic` a prompt may ask for
    an ending.  Links are signed with `secret` and live for `url_life` seconds.  A `strict` server refuses what the live
    one ignores.  A prompt has at most `longest_prompt` bytes.  A server that `keeps_keys` takes a submit that is
    repeated with its Idempotency-Key for the same one; the live service does not.  One that `redirects` sends a link on
    to the store that has the image, where that signs links.  One that `caches` answers a request with a seed from what
    was made for the same request before, whoever asked.  Once it `is_closing`, the server accepts nothing.
    """

    def __init__(
        self,
        accounts: Accounts,
        clock: Callable[[], float],
        *,
        engine: str | None = "offline",
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
        redirects: bool = False,
        caches: bool = False,
    ) -> None:
        self.accounts = accounts
        self.tasks = accounts.tasks
        self.store = accounts.store
        self.clock = clock
        # Who this process is to the others.
        self.process = f"{socket.gethostname()}-{os.getpid()}-{entropy(4).hex()}"
        self.engine = engine
        self.abilities = abilities or FullAbilities()
        self.entropy = entropy
        self.pace = pace
        self.url_life = url_life
        self.secret = self.store.secret if secret is None else secret
        self.dialect: Dialect = dialect
        self.policy = policy or WebhookPolicy()
        self.strict = strict
        self.longest_prompt = longest_prompt
        self.keeps_keys = keeps_keys
        self.redirects = redirects
        self._answers = Answers(self.store.database)
        self._caches = caches
        self.faults = scripted(trouble)
        self.metrics = Metrics()
        # Submits with an idempotency key that are still being read: the account's digest and the key.
        self.submitting: set[tuple[str, str]] = set()
        self.models: Mapping[str, Model] = {
            path: model for model in catalog.list_models().values() for path in model.paths()
        }
        self._pools = sorted({model.pool for model in self.models.values()})
        self._magic = magic
        self._closing = False
        self._files = TaskFiles(self.tasks, self.store, self._answers, clock, pace)
        self.condition = StorageCondition(clock, self.store.probe_rows, self.store.probe_files)
        self._listeners: list[TaskListener] = []
        self._swept = float("-inf")

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
        return result_of(self.find_account(request))

    def find_account(self, request: ServerRequest) -> AskingFlow[Account]:
        """Find the account as `authenticate` does, together with those of other requests."""
        model = self.models.get(request.path)
        pool = model.pool if model else ""
        if not request.key:
            visitor = sessions.visitor(self.secret, request, self.clock())
            account = visitor and (yield from self.ask_account(visitor, pool))
            if account:
                return account
            raise ServerError("no_key", "Send your key in the header x-key.", detail="Not authenticated")
        if not is_well_formed(request.key):
            raise ServerError("malformed_key", "Invalid API key format")
        account = yield from self.ask_account(digest_of(request.key), pool)
        if account is None:
            detail = "Not authenticated - Invalid Authentication"
            wrong = "is mistyped: its checksum is wrong" if keys.is_mistyped(request.key) else "is unknown or revoked"
            raise ServerError("unknown_key", f"This key {wrong}.", detail=detail)
        return account

    def ask_account(self, digest: str, pool: str) -> AskingFlow[Account | None]:
        """Find the account of a key's SHA-256, and how it stands in a pool."""
        accounts, now = self.accounts, self.clock()
        return ask(lambda: accounts.account_of(digest, now, pool), accounts.accounts_of, (digest, now, pool))

    def find_answer(self, job: TaskRecord, rule: FaultRule | None) -> AskingFlow[bytes | None]:
        """Return the image that the same request made before, if this server answers so; the task then costs nothing.

        A task whose ending is decided has none, and what another engine made is no answer: it may be a placeholder.
        """
        if not self._caches or _decided(rule) or self._asked_for(job):
            return None
        return (yield from ask(lambda: self._read_answer(job)))

    def _read_answer(self, job: TaskRecord) -> bytes | None:
        answer = self._answers.find(job.order, self.clock())
        if answer is None or answer.engine not in self.engines(job.model):
            return None
        image = self.store.image(answer.image)
        if image is not None:
            job.task, job.cached, job.engine = replace(job.task, cost=Decimal(0)), True, answer.engine
            job.order = replace(job.order, output_format=answer.image.rpartition(".")[2])
        return image

    def accept(
        self, job: TaskRecord, account: Account, rule: FaultRule | None = None, answer: bytes | None = None
    ) -> AskingFlow[Slots | None]:
        """Book a task and have it rendered, unless its prompt or a rule decides how it ends, or its image is there.

        Returns the slots that are held with its own, if it holds one.  Raises `ServerError` if nothing can be kept, and
        what `Tasks.accept` raises.
        """
        decided = _decided(rule) or self._asked_for(job)
        job.stage = "queued" if decided is None else "stuck"
        has_ending = answer is not None if decided is None else bool(decided.word)

        try:
            slots = yield from self._book(job, account, decided, answer)
        except UnknownCommitError as error:
            self.condition.note(error)
            raise ServerError("internal", UNKNOWN) from None
        except StorageError as error:
            self.condition.note(error)
            part = "database" if isinstance(error, DatabaseError) else "storage"
            text = f"The server cannot keep tasks now, because its {part} cannot be written. Nothing was charged."
            raise ServerError("storage", text, retry_after=RETRY_STORAGE) from None
        self.condition.database = None
        self.metrics.accepted[job.model.name] += 1
        if has_ending:
            self._ended(job)
            return None
        ended = self.metrics.ended.total()
        if decided is None:
            self._report("accepted", job)
        # Face to face the task has been rendered by now, and its slot is not what it was.
        return slots if self.metrics.ended.total() == ended else None

    def resume(self) -> None:
        """Take up what another process left: tasks without an end, and webhooks that were not delivered."""
        for job in self.tasks.resume() if self.store.embedded else ():
            decided = self._asked_for(job)
            if decided is None:
                self.tasks.requeue(job)
            else:
                self._decide(job, decided)
        self._resume_listeners()

    def claim(self) -> TaskRecord | None:
        """Take up the next task that waits, with the images that came with it."""
        job = self.tasks.claim(self.process)
        while job is not None and not self._complete(job):
            job = self.tasks.claim(self.process)
        return job

    def serves(self, model: Model) -> bool:
        """Whether some worker renders this model now; an embedded server has a worker of its own."""
        return not isinstance(self.store, FleetStore) or model.name in self.store.served()

    def find_faults(self, job: TaskRecord) -> list[Fault]:
        """Say what of an order this server's engine cannot do; what only other workers render is for them to judge."""
        is_others = isinstance(self.store, FleetStore) and self.abilities.facts(job.model) is None
        return [] if is_others else list(self.abilities.faults(job.order))

    def engines(self, model: Model | None = None) -> frozenset[str]:
        """Name the engines that render now, or that render a model: this server's own, or those of live workers."""
        if not isinstance(self.store, FleetStore):
            return frozenset(filter(None, [self.engine]))
        served = self.store.served()
        return frozenset[str]().union(*served.values()) if model is None else served.get(model.name, frozenset())

    def sole_engine(self, model: Model | None = None) -> str | None:
        """Name the engine that renders now, or that renders a model, if it is one and no other."""
        found = self.engines(model)
        return next(iter(found)) if len(found) == 1 else None

    def health(self) -> Health:
        """Tell how the engine of this process is; in a fleet without a live worker nothing renders."""
        if isinstance(self.store, FleetStore) and not self.store.served():
            return Health(NO_WORKER, serving=False)
        return self.abilities.health()

    def is_quiet(self, linger: float) -> bool:
        """Whether nothing runs here, and nothing of the last `linger` seconds waits to be collected."""
        if isinstance(self.store, FleetStore):
            try:
                return not self.store.held(self.process)
            except StorageError as error:
                # Something may wait for the database to come back.
                self.condition.note(error)
                return False
        return self.tasks.is_quiet(self.clock(), linger)

    def begin(self, identity: str) -> TaskRecord | None:
        """Take up one task, with the images that came with it; `None` if it has ended."""
        job = self.tasks.begin(identity, self.process)
        return job if job is not None and self._complete(job) else None

    def advance(self, job: TaskRecord, progress: RenderProgress) -> bool:
        """Record how far the engine is; says whether the task is still this process's."""
        now = self.clock()
        moved = self.tasks.advance(job, progress.share, progress.preview, now)
        if moved and progress.is_fetched and self.tasks.vacate(job, now):
            self._resume_listeners()
        return moved

    def finish(self, job: TaskRecord, image: bytes) -> bool:
        """Keep the image that an engine made for a task; says whether the task was still this worker's.

        Raises `StorageError` if the storage takes nothing; the image can be handed in again.
        """
        now, job.engine = self.clock(), self.engine
        if not self._files.finish(job, image):
            return False
        self.condition.database = None
        self.condition.took_files()
        self.metrics.observe("render", job.model.name, now - (job.accepted if job.began is None else job.began))
        self._ended(job)
        return True

    def fail(self, job: TaskRecord, reason: str) -> bool:
        """End a task whose image the engine could not make, and return its credits."""
        return self.conclude(job, Ending("Error", {"error": reason}), fence=job.fence)

    def cancel(self, job: TaskRecord) -> None:
        """End a task at its owner's wish, and stop the engine."""
        self.conclude(job, endings.CANCELLED)
        self._report("cancelled", job)

    def conclude(self, job: TaskRecord, ending: Ending, fence: int | None = None) -> bool:
        """End a task without an image; one that has ended, or that another worker has by now, stays as it is.

        Raises `StorageError` if nothing can be written.
        """
        now, files = self.clock(), [*input_files(job), *([job.image] if job.image else [])]
        if not self.tasks.end(job, ending, now, now, fence):
            return False
        self._ended(job)
        self._files.remove(files)
        return True

    def note_delivered(self, job: TaskRecord) -> None:
        """Note that an image was collected, for the end of the server waits for that."""
        now = self.clock()

        def write() -> None:
            if self.tasks.note_delivered(job):
                self.metrics.observe("deliver", job.model.name, now - (job.ready_at or now))

        self.condition.tries(write)

    def result(self, job: TaskRecord, origin: str, now: float, life: float | None = None) -> Json:
        """Write what was made, with a link signed at this moment that lives for `life` seconds."""
        where = links.path(job.folder, job.order.output_format)
        until = now + (self.url_life if life is None else life)
        ended = job.ready_at or now
        return {
            "sample": f"{origin}{where}?{links.sign(self.secret, where, content_type(job), until)}",
            "prompt": job.order.prompt if job.made_prompt is None else job.made_prompt,
            "seed": job.order.seed,
            "start_time": job.accepted,
            "end_time": ended,
            "duration": round(ended - job.accepted, 6),
            "engine": job.engine or UNKNOWN_ENGINE,
            **({"cached": True} if job.cached else {}),
        }

    def take_webhook(self, job: TaskRecord) -> bool:
        """Take the webhook of a task that has ended, unless it is under way or was delivered."""
        return job.has_ended(self.clock()) and self.tasks.take_webhook(job, self.process)

    def take_webhooks(self, most: int) -> list[TaskRecord]:
        """Take webhooks that are due and that nobody delivers, the longest due first."""
        return self.tasks.take_webhooks(self.process, self.clock(), most)

    def return_webhooks(self, delivering: Collection[str]) -> bool:
        """Let webhooks be taken again that this process has taken and does not deliver."""
        self.tasks.return_webhooks(self.process, delivering)
        return True

    def delivery(self, job: TaskRecord) -> Flow[None]:
        """Return the flow that delivers a webhook that was taken."""
        webhook, now = job.webhook, self.clock()
        assert webhook is not None, "only tasks with a webhook are taken"
        made = self.result(job, job.task.polling_url.partition("/v1/")[0], now) if job.word == "Ready" else None
        body = webhooks.write_body(job, made, job.ready_at or now)

        def saved() -> None:
            self.condition.tries(lambda: self.tasks.note_webhook(job, webhook, self.process))
            if webhook.state != "pending":
                self.metrics.webhooks[webhook.state] += 1

        def meet() -> FaultRule | None:
            return self.faults.meet(occasion("webhook", job))

        return webhooks.deliver(webhook, body, self.policy, self.clock, saved=saved, meet=meet)

    def unavailable(self, error: StorageError) -> ServerError:
        """Note that the state could not be asked, and return the answer for it."""
        self.condition.note(error)
        return ServerError("storage", "The server's state cannot be read now.", retry_after=RETRY_STORAGE)

    async def flush(self) -> None:
        """Come back when what was written so far would survive a power cut; raises `ServerError`."""
        try:
            await self.store.flushed()
        except StorageError as error:
            self.condition.note(error)
            raise ServerError("internal", UNKNOWN) from None

    def now(self) -> float:
        """Tell the moment, after what was kept long enough is dropped where that takes microseconds.

        Elsewhere the background workers see to it, and nobody's request waits for a storage.
        """
        return self.clock() if self.store.blocks else self.forget()

    def forget(self) -> float:
        """Drop the tasks whose images were kept long enough, once a second, and return the moment."""
        now = self.clock()
        if now - self._swept < SWEEP_EVERY:
            return now
        self._swept = now
        # Nothing may have been written, so success proves nothing about the database.
        try:
            self._sweep(now)
        except StorageError as error:
            self.condition.note(error)
        return now

    def _sweep(self, now: float) -> None:
        self.tasks.forget(now)
        if self.tasks.sweep(self._pools, now):
            self._resume_listeners()
        if not self.store.blocks:
            self.tasks.removals.sweep(now)

    def remove_files(self) -> None:
        """Remove files that nothing names any more, which may wait for a storage in a network."""
        self.tasks.removals.sweep(self.clock())

    def _resume_listeners(self) -> None:
        for listener in tuple(self._listeners):
            listener.resumed()

    def _asked_for(self, job: TaskRecord) -> Ending | None:
        return endings.asked_for(job.order.prompt) if self._magic else None

    def _decide(self, job: TaskRecord, ending: Ending) -> None:
        now = self.clock()
        if ending.word:
            self.tasks.end(job, ending, now, now + self.pace(job.order))
        else:
            self.tasks.stick(job, now)

    def _complete(self, job: TaskRecord) -> bool:
        """Give a task the images that came with it; without one of them it ends, since its image would differ."""
        if self._files.take_inputs(job):
            return True
        self.conclude(job, endings.INPUTS_LOST, job.fence)
        return False

    def _book(
        self, job: TaskRecord, account: Account, decided: Ending | None, answer: bytes | None
    ) -> AskingFlow[Slots | None]:
        has_files = answer is not None or job.order.references or job.order.canvas is not None
        if has_files or (decided is not None and decided.word):
            return (yield from ask(lambda: self._book_with_files(job, account, decided, answer)))
        # What a submit together with others would only be refused for, or wait for, is found out alone.
        is_alone = account.rate is not None or account.standing.busy >= account.slots(job.model)
        together = None if is_alone else self.tasks.accept_all
        return (yield from ask(lambda: self._book_alone(job, account), together, Booking(job, account)))

    def _book_alone(self, job: TaskRecord, account: Account) -> Slots | None:
        slots = self.tasks.accept(job, account)
        # The task is there, whatever becomes of this.
        self.condition.tries(lambda: self.tasks.make_room(self.clock()))
        return slots

    def _book_with_files(
        self, job: TaskRecord, account: Account, decided: Ending | None, answer: bytes | None
    ) -> Slots | None:
        # Files first, so that no row lacks one and no lock waits for a store; they go again if the row is refused.
        files = self._files.announce(job, answer)
        try:
            self._files.keep_inputs(job)
            image = None if answer is None else self._files.put_image(job, answer)
            if files:
                self.condition.took_files()
            with self.store.database.write() as transaction:
                slots = self.tasks.accept(job, account)
                self.tasks.removals.keep(transaction, files)
                if decided is not None and decided.word:
                    self._decide(job, decided)
                elif image:
                    self._files.show(job, image)
        except UnknownCommitError:
            # The row may be there, and its worker needs them.
            raise
        except BaseException:
            self._files.remove(files)
            raise
        if image:
            # The task is there, whatever becomes of this.
            self.condition.tries(lambda: self._files.tidy(job))
        return slots

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
