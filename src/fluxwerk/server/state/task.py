"""One accepted task as a value: what was ordered and charged, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from fluxwerk.catalog.rows import Model
from fluxwerk.engines import Order
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.types import Json, Task


@dataclass(slots=True)
class TaskRecord:
    """One row of the state as it was read; times are seconds on the server's clock.

    `account` is the id of the account that pays.  `began` is when the engine took it up, `settled` what it costs in
    the end, `idempotency` the submit's idempotency key with the SHA-256 of its body.  `inputs` names the images that
    came with it, which only who renders it reads.  `stage` is waiting, queued, running, stuck or ended, and `fence` the
    number that a move of this reader has to name.  `image` is where its image is stored, `engine` names what made it,
    and `made_prompt` is what a service upstream made of its prompt; a `cached` task has the image of an earlier one.
    Workers take the highest `priority` first, and an account's waiting tasks get theirs by `urgency`, then by `number`.
    `trace` is the trace context of the submit.
    """

    task: Task
    account: str = field(repr=False)
    model: Model
    order: Order
    accepted: float
    folder: str = field(default="", repr=False)
    ready_at: float | None = None
    word: str = "Pending"
    details: Json = None
    stage: str = "queued"
    priority: int = 0
    fence: int = 0
    progress: float | None = None
    preview: bytes | None = field(default=None, repr=False)
    began: float | None = None
    settled: Decimal | None = None
    webhook: OutgoingWebhook | None = field(default=None, repr=False)
    idempotency: tuple[str, str] | None = field(default=None, repr=False)
    inputs: tuple[str, ...] = ()
    image: str | None = field(default=None, repr=False)
    made_prompt: str | None = field(default=None, repr=False)
    cached: bool = False
    urgency: int = 0
    number: int = 0
    trace: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    tags: tuple[str, ...] = ()
    engine: str | None = None

    def has_ended(self, now: float) -> bool:
        """Whether its ending may be shown by now; until then it holds its slot."""
        return self.ready_at is not None and now >= self.ready_at
