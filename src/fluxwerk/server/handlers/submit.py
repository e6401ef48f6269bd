"""A submit: read, priced, charged and booked, or refused with the reason."""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from fluxwerk.catalog import prices, sizes
from fluxwerk.catalog.rows import IMAGE_TYPES, Model
from fluxwerk.catalog.sizes import Size
from fluxwerk.engines import Order
from fluxwerk.errors import Fault, UnknownPriceError
from fluxwerk.protocol import wire
from fluxwerk.protocol.idempotency import KEY_HEADER, write_promise
from fluxwerk.server import inputs, requestlog, schema, strictness, telemetry
from fluxwerk.server.errors import ServerError, invalid, unfit
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.handlers import limits, refusals
from fluxwerk.server.inputs import ReceivedImages
from fluxwerk.server.inquiry import AskingFlow, ask
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.booking import RepeatedSubmitError
from fluxwerk.server.state.charges import CreditsSpentError, SubmitRateError
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.queue import SlotsTakenError
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.strictness import Remark
from fluxwerk.types import Json, Response, Task

SEED_BITS = 32
# Seconds; a worker that loads weights takes longer, and tells nobody how long.
RETRY_WORKER = 10
# What an order's options leave out: the order has columns of its own for these.
COLUMNS = frozenset({"prompt", "width", "height", "seed", "output_format", "webhook_url", "webhook_secret", "user"})
# What another service is not told: the order has the prompt, and this server delivers the webhook itself.
NOT_PASSED_ON = frozenset({"prompt", "webhook_url", "webhook_secret"})
# The largest input with the widest margins; what is larger would only fill the memory.
LARGEST_OUTPUT = 80_000_000
# How many pixels a side may have in a file of that format, as the usual libraries write it.
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
LONGEST_IDEMPOTENCY_KEY = 255
PRIORITY = "x-fluxwerk-priority"
PRIORITIES = re.compile(r"-?(100|[0-9]{1,2})", re.ASCII)

log = logging.getLogger("fluxwerk.server")


@dataclass(frozen=True, slots=True)
class Admission:
    """What was found by a request's headers: how many bytes its body may have, and the account of a submit.

    Unless the submit repeats one that was taken, the account has a slot and may use the model, as of that moment.
    """

    largest: int
    account: Account | None = field(default=None, repr=False)


def submit(
    state: ServerState, model: Model, request: ServerRequest, rule: FaultRule | None, admitted: Account | None = None
) -> AskingFlow[Response]:
    """Accept one task and answer with it; `rule` is the trouble that its ending may have been given.

    An account that was `admitted` a moment ago is not looked up again.
    """
    account = admitted or (yield from state.find_account(request))
    refusals.check_size(account, request.body)
    idempotency = _idempotency(request) if state.keeps_keys else None
    # A server that closes still names the task of a submit that it has taken.
    known = (yield from _repeated(state, account, idempotency)) if idempotency else None
    if known is not None:
        return known
    refusals.check_open(state)
    if idempotency is None:
        return (yield from _accept(state, account, model, request, rule, None, is_admitted=admitted is not None))
    waiting = account.id, idempotency[0]
    state.submitting.add(waiting)
    try:
        return (yield from _accept(state, account, model, request, rule, idempotency, is_admitted=False))
    finally:
        state.submitting.discard(waiting)


def admit(state: ServerState, model: Model, request: ServerRequest, most: int) -> Admission:
    """Judge key, closing state and slots by the headers, before the body is read.

    Raises `ServerError`.  A body of this model has at most `most` bytes, and that of some accounts fewer.
    """
    account = state.authenticate(request)
    refusals.check_model(account, model)
    # A repeated submit is answered with its task, and needs no slot.
    key = request.headers.get(KEY_HEADER) if state.keeps_keys else None
    if key is None or state.tasks.find_repeated(account.id, key, state.clock()) is None:
        refusals.check_open(state)
        refusals.check_slot(state, account, model)
        refusals.check_rate(state, account)
    own = account.application.largest_body if account.application else None
    return Admission(most if own is None else min(own, most), account)


def promise(state: ServerState) -> dict[str, str]:
    """Say, as a header of every answer, that a repeated submit is the same task; the live service does not."""
    return write_promise(state.accounts.keep) if state.keeps_keys else {}


def entry(fault: Fault) -> dict[str, Json]:
    """Write a fault that an engine found as one entry of a 422."""
    hint = f" ({fault.hint})" if fault.hint else ""
    return {"type": "not_honoured", "loc": ["body", fault.field], "msg": f"{fault.allowed}{hint}"}


def check_area(model: Model, *sizes: Size) -> None:
    """Refuse sizes of more pixels than the model makes, or than the memory holds."""
    most = model.maximum_pixels or LARGEST_OUTPUT
    for width, height in sizes:
        if width * height > most:
            text = f"{width}×{height} is too large; at most {most} pixels are made"
            raise invalid([{"type": "too_many_pixels", "loc": ["body"], "msg": text}])


def _accept(
    state: ServerState,
    account: Account,
    model: Model,
    request: ServerRequest,
    rule: FaultRule | None,
    idempotency: tuple[str, str] | None,
    *,
    is_admitted: bool,
) -> AskingFlow[Response]:
    if not state.serves(model):
        text = f"No worker serves {model.name} now; GET /v1/models says which models are served."
        raise ServerError("no_worker", text, retry_after=RETRY_WORKER)
    given, fields, remarks, extended = _read(state, model, request.body)
    webhook = _webhook_of(state, fields)
    refusals.check_model(account, model)
    account = yield from _judge(state, account, model, request, fields, is_admitted=is_admitted)
    with state.accounts.hold(account, model):
        attached = yield from inputs.attach(model, fields)
    # Fetching took time, in which the end may have begun: what is accepted now would not be waited for.
    refusals.check_open(state)
    job = _job(state, account, model, fields, attached, request.origin)
    options = {**job.order.options, **extended}
    job.order = replace(job.order, id=job.task.id, asked=_asked(model, given), options=options)
    job.webhook, job.idempotency = webhook, idempotency
    faults = state.find_faults(job)
    if faults:
        raise invalid([entry(fault) for fault in faults])
    kept = yield from state.find_answer(job, rule)
    job.urgency, job.trace = _urgency(request), telemetry.present()
    refusals.check_credits(state, account, job.task.cost)
    try:
        slots = yield from state.accept(job, account, rule, kept)
    except SlotsTakenError:
        raise (yield from _busy(state, account, model)) from None
    except CreditsSpentError as spent:
        raise refusals.no_credits(state, account, job.task.cost, spent.left) from None
    except SubmitRateError as early:
        raise refusals.too_often(account, early.wait) from None
    except RepeatedSubmitError:
        # Another process accepted the same submit at this moment.
        known = (yield from _repeated(state, account, idempotency)) if idempotency else None
        if known is not None:
            return known
        raise _in_progress() from None
    requestlog.note(task=job.task.id, key=account.shown, prompt=job.order.prompt)
    for remark in remarks:
        log.warning("%s: %s", model.name, remark)
    answer = _answer(job)
    told = limits.write(state, account, model, slots) if slots else {}
    return Response(answer.status, {**answer.headers, **strictness.header(remarks), **told}, answer.body)


def _judge(
    state: ServerState,
    account: Account,
    model: Model,
    request: ServerRequest,
    fields: dict[str, Json],
    *,
    is_admitted: bool,
) -> AskingFlow[Account]:
    """Refuse an account without a slot, or before its time, and return it as it stands; raises `ServerError`."""
    if is_admitted and not inputs.has_images(model, fields):
        return account
    if is_admitted:
        # Images take time and slots, and others may have submitted since the headers came.
        account = yield from state.find_account(request)
    if not state.accounts.has_slot(account, model, state.clock()):
        raise (yield from _busy(state, account, model))
    refusals.check_rate(state, account)
    return account


def _busy(state: ServerState, account: Account, model: Model) -> AskingFlow[ServerError]:
    return ask(lambda: refusals.busy(state, account, model))


def _read(state: ServerState, model: Model, body: bytes) -> tuple[Json, dict[str, Json], list[Remark], dict[str, Json]]:
    """Read what was given, its fields with their defaults, what there is to remark, and the fields of the engine.

    A strict service refuses remarks beside everything else.
    """
    wrong: list[dict[str, Json]] = []
    given: Json = {}
    fields: dict[str, Json] = {}
    remarks: list[Remark] = []
    extended: dict[str, Json] = {}
    try:
        given, extended = _extended(state, model, schema.parse(body))
        remarks = strictness.remarks(model, given)
        fields = schema.check(model, given)
    except schema.InvalidFieldsError as unfit_:
        wrong = unfit_.detail
    if state.strict:
        wrong = [*wrong, *(remark.entry() for remark in remarks)]
    wrong = wrong or _prompt_faults(fields.get("prompt", ""), state.longest_prompt)
    if wrong:
        raise invalid(wrong)
    return given, fields, remarks, extended


def _extended(state: ServerState, model: Model, given: Json) -> tuple[Json, dict[str, Json]]:
    """Take the fields out of a body that the engine has beyond the live service, and checks itself."""
    names = (state.abilities.facts(model) or {}).get("extensions") or ()
    if not names or not isinstance(given, dict):
        return given, {}
    body = cast("dict[str, Json]", given)
    own = {name: value for name, value in body.items() if name in names}
    return {name: value for name, value in body.items() if name not in own}, own


def _asked(model: Model, given: dict[str, Json]) -> dict[str, Json]:
    """Keep of a request what its client wrote itself, for an engine that passes it on."""
    return {
        name: value
        for name, value in given.items()
        if name in model.options and name not in NOT_PASSED_ON and model.options[name].type not in IMAGE_TYPES
    }


def _prompt_faults(prompt: str, longest: int) -> list[dict[str, Json]]:
    size = len(prompt.encode())
    if size <= longest:
        return []
    text = f"Prompt has {size} bytes; at most {longest} are taken"
    return [{"type": "string_too_long", "loc": ["body", "prompt"], "msg": text}]


def _answer(job: TaskRecord) -> Response:
    return wire.write_task(job.task, {"status": "Pending", "webhook_url": job.webhook.url} if job.webhook else None)


def _idempotency(request: ServerRequest) -> tuple[str, str] | None:
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= LONGEST_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        place = ["header", "Idempotency-Key"]
        text = f"Input should be 1 to {LONGEST_IDEMPOTENCY_KEY} printable ASCII characters"
        raise invalid([{"type": "value_error", "loc": place, "msg": text}])
    return key, hashlib.sha256(request.path.encode() + b"\0" + request.body).hexdigest()


def _repeated(state: ServerState, account: Account, idempotency: tuple[str, str]) -> AskingFlow[Response | None]:
    wanted = account.id, idempotency[0], state.now()
    job = yield from ask(lambda: state.tasks.find_repeated(*wanted), state.tasks.find_all_repeated, wanted)
    if job is None:
        if (account.id, idempotency[0]) in state.submitting:
            raise _in_progress()
        return None
    if job.idempotency != idempotency:
        place = ["header", "Idempotency-Key"]
        text = "This key was used with another body; use a new key for a new image"
        raise invalid([{"type": "idempotency_key_reused", "loc": place, "msg": text}])
    answer = _answer(job)
    requestlog.note(task=job.task.id)
    return Response(answer.status, {**answer.headers, "idempotent-replayed": "true"}, answer.body)


def _webhook_of(state: ServerState, fields: Mapping[str, Json]) -> OutgoingWebhook | None:
    url = fields.get("webhook_url")
    if not url:
        return None
    fault = state.policy.fault(url)
    if fault:
        raise unfit("webhook_url", fault)
    secret = fields.get("webhook_secret") or None
    if secret and not (secret.isascii() and secret.isprintable()):
        raise unfit("webhook_secret", "Input should be printable ASCII, because the secret is sent in a header")
    return OutgoingWebhook(url, secret)


def _urgency(request: ServerRequest) -> int:
    """Read how urgent a task is among its own account's."""
    text = request.headers.get(PRIORITY, "0")
    if not PRIORITIES.fullmatch(text):
        place = ["header", "X-Fluxwerk-Priority"]
        raise invalid([{"type": "int_parsing", "loc": place, "msg": "Input should be a whole number from -100 to 100"}])
    return int(text)


def _in_progress() -> ServerError:
    text = "A submit with this Idempotency-Key is still being read; ask again in a moment"
    return ServerError("conflict", text, retry_after=limits.RETRY_AFTER)


def _job(
    state: ServerState,
    account: Account,
    model: Model,
    fields: dict[str, Json],
    attached: list[ReceivedImages],
    origin: str,
) -> TaskRecord:
    priced = [one.size for one in attached if one.name != "mask"]
    billed = sizes.requested_size(model, fields, priced)
    size = sizes.output_size(model, fields, priced)
    check_area(model, billed, size)
    try:
        cost = prices.estimate(model, *billed, inputs=priced)
    except UnknownPriceError:
        cost = None
    identity = str(uuid.UUID(bytes=state.entropy(16), version=4))
    task = Task(
        identity,
        f"{origin}/v1/get_result?id={identity}",
        model.name,
        cost,
        prices.reported_megapixels(*priced),
        prices.reported_megapixels(billed),
    )
    order = _order(state, model, fields, attached, size)
    _check_sides(order)
    return TaskRecord(task, account.id, model, order, state.clock(), folder=state.entropy(24).hex())


def _check_sides(order: Order) -> None:
    most = LONGEST_SIDE.get(order.output_format, LARGEST_OUTPUT)
    if max(order.width, order.height) > most:
        text = f"{order.width}×{order.height} does not fit: {order.output_format} has at most {most} pixels on a side"
        raise unfit("output_format", text)


def _order(
    state: ServerState, model: Model, fields: dict[str, Json], attached: list[ReceivedImages], size: Size
) -> Order:
    canvas = inputs.canvas(model, fields, attached, size)
    seed = fields.get("seed")
    return Order(
        model=model.name,
        prompt=fields.get("prompt", ""),
        seed=int.from_bytes(state.entropy(SEED_BITS // 8)) if seed is None else seed,
        width=size[0],
        height=size[1],
        output_format=fields.get("output_format") or ("png" if model.output == "resolution" else "jpeg"),
        references=() if canvas else tuple(one.data for one in attached),
        names=() if canvas else tuple(one.name for one in attached),
        canvas=canvas,
        options={
            name: value
            for name, value in fields.items()
            if name not in COLUMNS and model.options[name].type not in IMAGE_TYPES
        },
    )
