"""What the server does with a request: plain functions of request, state and time.

`Service.answer` is a flow as the client's are: it yields a call for every image that it has to fetch, and returns
the answer.  So client and server meet face to face on a pretend clock, and FastAPI only carries them to the wire.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

from fluxwerk import catalog, geometry, pricing, raster
from fluxwerk.catalog import IMAGE_TYPES, Model
from fluxwerk.engines import Abilities, Canvas, Everything, Order, Progress
from fluxwerk.errors import Lost, UnknownPrice
from fluxwerk.exchange import Call, Flow, HttpRequest, Json, Outcome, Response, Status, Task
from fluxwerk.geometry import Size
from fluxwerk.input import LARGEST_BYTES
from fluxwerk.protocol import wire
from fluxwerk.server import delivery, extensions, schema
from fluxwerk.server.books import Account, Books, Job, is_well_formed

SEED_BITS = 32
# What an order's options leave out: the order has columns of its own for these.
COLUMNS = frozenset({"prompt", "width", "height", "seed", "output_format", "webhook_url", "webhook_secret", "user"})
CONTENT_TYPE = {suffix: content_type for content_type, suffix in raster.SUFFIX.items()}
RETRY_AFTER = 1
# The largest input with the widest margins; what is larger would only fill the memory.
LARGEST_OUTPUT = 80_000_000

Pace = Callable[[Order], float]


@dataclass(frozen=True, slots=True)
class Attached:
    """An image that came with a submit, fetched, decoded from its text and measured."""

    name: str
    data: bytes
    size: Size


class Refusal(Exception):
    """The answer to give instead."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Service:
    """The behaviour of the API over its books.

    `clock` tells the time in seconds since 1970, `entropy(n)` gives n unguessable bytes, `pace` how many seconds a job
    takes at least, `engine` is the name told with each image, `abilities` what it says about itself, `on_accept` hears
    of each job to render and `on_cancel` of each to give up.  While `closing`, nothing is accepted.
    """

    def __init__(
        self,
        books: Books,
        clock: Callable[[], float],
        *,
        engine: str = "offline",
        abilities: Abilities | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        pace: Pace = lambda _: 0.0,
        on_accept: Callable[[Job], object] = lambda _: None,
        url_life: float = delivery.LIFE,
    ) -> None:
        self.books = books
        self.clock = clock
        self.engine = engine
        self.pace = pace
        self.abilities = abilities or Everything()
        self.on_accept = on_accept
        self.on_cancel: Callable[[Job], object] = lambda _: None
        self.closing = False
        self._entropy = entropy
        self._secret = entropy(32)
        self._url_life = url_life
        self._models = {path: model for model in catalog.models().values() for path in model.paths()}

    @property
    def models(self) -> Mapping[str, Model]:
        """Which model answers at which path."""
        return self._models

    def answer(self, http: HttpRequest) -> Flow[Response]:
        """Answer one HTTP request; headers in lower case."""
        parts = urlsplit(http.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        query = parse_qs(parts.query, keep_blank_values=True)
        model = self._models.get(parts.path)
        try:
            if model and http.method == "POST":
                return (yield from self._submit(model, http, origin))
            if parts.path == "/v1/cancel" and http.method == "POST":
                return extensions.cancel(self, self.account(http), query.get("id", [""])[-1])
            if http.method in ("GET", "HEAD"):
                return self._get(parts.path, http, origin, {name: values[-1] for name, values in query.items()})
        except Refusal as refusal:
            return refusal.response
        known = model or parts.path in ("/v1/get_result", "/v1/credits", *extensions.PATHS)
        status, detail, error = (405, "Method Not Allowed", "method") if known else (404, "Not Found", "not_found")
        return wire.write_refusal(status, detail, error=error, message=detail)

    def advance(self, job: Job, progress: Progress) -> None:
        """Take the news of how far the engine is with a job."""
        job.progress, job.preview = progress.share, progress.preview

    def finish(self, job: Job, picture: bytes) -> None:
        """Take the image that an engine made for a job."""
        now = self.clock()
        self.books.finish(job, picture, max(now, job.accepted + self.pace(job.order)))

    def fail(self, job: Job, reason: str) -> None:
        """Take the news that an engine could not make an image, and return the credits."""
        self.books.fail(job, {"error": reason}, self.clock())

    def _submit(self, model: Model, http: HttpRequest, origin: str) -> Flow[Response]:
        account = self.account(http)
        if self.closing:
            raise Refusal(extensions.closing(RETRY_AFTER))
        try:
            fields = schema.read(model, http.body)
        except schema.Unfit as unfit:
            raise Refusal(_invalid(unfit.detail)) from None
        self._check_slot(account, model)
        attached = yield from _attach_all(model, fields)
        # Fetching took time, and others were served meanwhile.
        self._check_slot(account, model)
        job = self._job(account, model, fields, attached, origin)
        faults = self.abilities.faults(job.order)
        if faults:
            raise Refusal(_invalid([extensions.entry(fault) for fault in faults]))
        self._charge(account, job.task.cost)
        self.books.accept(job)
        self.on_accept(job)
        extra = {"status": "Pending", "webhook_url": fields["webhook_url"]} if fields.get("webhook_url") else None
        return wire.write_task(job.task, extra)

    def _get(self, path: str, http: HttpRequest, origin: str, query: Mapping[str, str]) -> Response:
        if path == "/v1/get_result":
            return self.poll(query, origin)
        if path == "/v1/credits":
            return wire.write_credits(self.account(http).credits)
        if path in extensions.READS:
            return extensions.READS[path](self)
        folder = delivery.folder(path)
        if folder is None:
            return wire.write_refusal(404, "Not Found", error="not_found", message="Not Found")
        return self._deliver(folder, path, query)

    def account(self, http: HttpRequest) -> Account:
        """Find whose key came with the request."""
        key = http.headers.get("x-key", "")
        if not key:
            text = "Not authenticated"
            raise Refusal(wire.write_refusal(403, text, error="invalid_api_key", message="Send the header x-key."))
        if not is_well_formed(key):
            text = "Invalid API key format"
            raise Refusal(wire.write_refusal(422, text, error="invalid_api_key", message=text))
        account = self.books.account(key)
        if account is None:
            text = "Not authenticated - Invalid Authentication"
            raise Refusal(wire.write_refusal(403, text, error="invalid_api_key", message="This key is not known."))
        return account

    def _check_slot(self, account: Account, model: Model) -> None:
        if not self.books.has_slot(account, model, self.clock()):
            text = f"Too many active tasks: at most {model.slots} of {model.pool} at a time"
            answer = wire.write_refusal(429, text, error="rate_limit_exceeded", message=text, retry_after=RETRY_AFTER)
            raise Refusal(answer)

    def _charge(self, account: Account, cost: Decimal | None) -> None:
        if cost is not None and account.credits < cost:
            text = f"Insufficient credits: this costs {cost}, {account.credits} are left"
            raise Refusal(wire.write_refusal(402, text, error="insufficient_credits", message=text))

    def _job(
        self, account: Account, model: Model, fields: dict[str, Json], attached: list[Attached], origin: str
    ) -> Job:
        priced = [one.size for one in attached if one.name != "mask"]
        billed = geometry.requested_size(model, fields, priced)
        size = geometry.output_size(model, fields, priced)
        _check_area(model, billed, size)
        try:
            cost = pricing.estimate(model, *billed, inputs=priced)
        except UnknownPrice:
            cost = None
        identity = _uuid(self._entropy(16))
        task = Task(
            identity,
            f"{origin}/v1/get_result?id={identity}",
            model.name,
            cost,
            pricing.reported_megapixels(*priced),
            pricing.reported_megapixels(billed),
        )
        order = self._order(model, fields, attached, size)
        return Job(task, account, model, order, self.clock(), folder=self._entropy(24).hex())

    def _order(self, model: Model, fields: dict[str, Json], attached: list[Attached], size: Size) -> Order:
        canvas = _canvas(model, fields, attached, size)
        seed = fields.get("seed")
        return Order(
            model=model.name,
            prompt=fields.get("prompt", ""),
            seed=int.from_bytes(self._entropy(SEED_BITS // 8)) if seed is None else seed,
            width=size[0],
            height=size[1],
            output_format=fields.get("output_format") or ("png" if model.output == "resolution" else "jpeg"),
            references=() if canvas else tuple(one.data for one in attached),
            canvas=canvas,
            options={
                name: value
                for name, value in fields.items()
                if name not in COLUMNS and model.options[name].type not in IMAGE_TYPES
            },
        )

    def poll(self, query: Mapping[str, str], origin: str) -> Response:
        """Say how a task stands."""
        identity = query.get("id", "")
        if not identity:
            return _invalid([{"type": "missing", "loc": ["query", "id"], "msg": "Field required"}])
        now = self.clock()
        self.books.forget(now)
        job = self.books.jobs.get(identity)
        if job is None:
            return wire.write_status(Status(Task(identity, ""), "Task not found", Outcome.MISSING))
        if not job.has_ended(now):
            return extensions.running(job)
        result = self._result(job, origin, now) if job.word == "Ready" else None
        cost = {"Ready": job.task.cost, "Error": Decimal(0)}.get(job.word)
        status = Status(job.task, job.word, wire.OUTCOMES[job.word], cost=cost, details=job.details)
        return wire.write_status(status, result=result)

    def _result(self, job: Job, origin: str, now: float) -> Json:
        where = delivery.path(job.folder, job.order.output_format)
        content_type = CONTENT_TYPE[job.order.output_format]
        ended = job.ready_at or now
        return {
            "sample": f"{origin}{where}?{delivery.sign(self._secret, where, content_type, now + self._url_life)}",
            "prompt": job.order.prompt,
            "seed": job.order.seed,
            "start_time": job.accepted,
            "end_time": ended,
            "duration": round(ended - job.accepted, 6),
            "engine": self.engine,
        }

    def _deliver(self, folder: str, path: str, query: Mapping[str, str]) -> Response:
        now = self.clock()
        fault = delivery.verify(self._secret, path, query, now)
        if fault:
            return wire.write_refusal(403, f"Forbidden: {fault}", error="forbidden", message=fault)
        job = self.books.by_folder.get(folder)
        if job is None or job.picture is None:
            return wire.write_refusal(404, "Not Found", error="not_found", message="This image is no longer kept.")
        until = datetime.strptime(query["se"], delivery.STAMP).replace(tzinfo=UTC).timestamp()
        headers = {
            "content-type": query["rsct"],
            "cache-control": f"private, max-age={max(0, int(until - now))}",
            "x-content-type-options": "nosniff",
        }
        job.delivered = True
        return Response(200, headers, job.picture)


def _invalid(detail: list[dict[str, Json]]) -> Response:
    first = detail[0]
    where = ".".join(str(part) for part in first["loc"])
    return wire.write_refusal(422, detail, error="validation_error", message=f"{where}: {first['msg']}")


def _check_area(model: Model, *sizes: Size) -> None:
    most = model.maximum_pixels or LARGEST_OUTPUT
    for width, height in sizes:
        if width * height > most:
            text = f"{width}×{height} is too large; at most {most} pixels are made"
            raise Refusal(_invalid([{"type": "too_many_pixels", "loc": ["body"], "msg": text}]))


def _unfit_image(name: str, reason: str) -> Refusal:
    return Refusal(_invalid([{"type": "image_invalid", "loc": ["body", name], "msg": f"Image {reason}"}]))


def _attach_all(model: Model, fields: dict[str, Json]) -> Flow[list[Attached]]:
    attached: list[Attached] = []
    for name, option in model.options.items():
        if option.type not in IMAGE_TYPES or name not in fields:
            continue
        texts = fields[name] if isinstance(fields[name], list) else [fields[name]]
        for text in texts[: model.references or 1]:
            data = yield from _fetch(name, text)
            attached.append(_measured(model, name, data))
    return attached


def _fetch(name: str, text: str) -> Flow[bytes]:
    if not text.startswith(("http://", "https://")):
        return _decoded(name, text)
    try:
        response = yield Call(HttpRequest("GET", text))
    except Lost as lost:
        raise _unfit_image(name, f"cannot be fetched: {lost}") from None
    if response.status != 200:  # noqa: PLR2004
        raise _unfit_image(name, f"cannot be fetched: its host answered {response.status}")
    return response.body


def _decoded(name: str, text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > LARGEST_BYTES * 4 // 3 + 4:
        raise _unfit_image(name, "is larger than 20 MB")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _unfit_image(name, "is neither a URL nor base64") from None


def _measured(model: Model, name: str, data: bytes) -> Attached:
    fault, found = raster.fault(data), raster.measure(data)
    if fault or found is None:
        raise _unfit_image(name, f"cannot be used: {fault}; PNG, JPEG or WebP is needed")
    width, height = found.size
    if width * height > model.largest_input_megapixels * 1_000_000:
        raise _unfit_image(name, f"is {width}×{height}; at most {model.largest_input_megapixels} megapixels are taken")
    if min(width, height) < model.smallest_input:
        raise _unfit_image(name, f"is {width}×{height}; each side needs {model.smallest_input} pixels")
    return Attached(name, data, found.size)


def _canvas(model: Model, fields: Mapping[str, Json], attached: list[Attached], size: Size) -> Canvas | None:
    images = {one.name: one for one in attached}
    source = images.get("image") or (images.get("input_image") if model.output == "canvas" else None)
    if source is None:
        return None
    mask = images.get("mask")
    offset = (0, 0)
    if model.output == "margins":
        offset = int(fields.get("left") or 0), int(fields.get("top") or 0)
    if model.output == "canvas":
        middle = (size[0] - source.size[0]) // 2, (size[1] - source.size[1]) // 2
        wanted = fields.get("reference_offset_x"), fields.get("reference_offset_y")
        offset = geometry.placed(wanted, middle)
    return Canvas(source.data, mask.data if mask else None, offset)


def _uuid(chance: bytes) -> str:
    text = bytes([*chance[:6], chance[6] & 0x0F | 0x40, chance[7], chance[8] & 0x3F | 0x80, *chance[9:]]).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
