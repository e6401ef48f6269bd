"""The OpenAI door: `/v1/images/generations`, `/v1/images/edits` and `/v1/models`, also without `/v1`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import cast

from fluxwerk import catalog, imagefile
from fluxwerk.catalog import images
from fluxwerk.catalog.rows import Model
from fluxwerk.client.mask import CONVENTIONS, Mask, read_mask
from fluxwerk.errors import Fault
from fluxwerk.protocol import wire
from fluxwerk.server.doors import options, shape
from fluxwerk.server.doors.form import Form
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.server.doors.visit import FILL, MadeImage, Visit, names_served
from fluxwerk.types import Flow, Json, Response, Status

MOST_AT_ONCE = 10
MOST_PREVIEWS = 3
# OpenAI's code and type for the server's words.
CODES = {
    "invalid_api_key": ("invalid_api_key", "authentication_error"),
    "insufficient_credits": ("insufficient_quota", "insufficient_quota"),
    "moderated": ("content_policy_violation", "image_generation_user_error"),
    "model_not_found": ("model_not_found", "invalid_request_error"),
    "rate_limit_exceeded": ("rate_limit_exceeded", "rate_limit_error"),
}
SERVER_ERROR = 500
NO_TOKENS: Mapping[str, Json] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


def generate(visit: Visit) -> Flow[Response]:
    """Make `n` images of a prompt."""
    model = yield from visit.model(visit.form.fields.get("model"))
    return (yield from _answer(visit, model, {}, "image_generation"))


def edit(visit: Visit) -> Flow[Response]:
    """Make `n` images of a prompt and the images with it; a mask chooses a model that paints inside one."""
    pictures = _pictures(visit.form, "image")
    if not pictures:
        raise RefusedError(400, "validation_error", "image: an edit needs at least one image", field="image")
    mask = _pictures(visit.form, "mask")
    model = yield from visit.model(visit.form.fields.get("model"))
    if mask and "mask" not in model.options:
        model = catalog.get_model(FILL)
    given = options.place_images(model, pictures)
    if mask:
        given["mask"] = mask[0]
    return (yield from _answer(visit, model, given, "image_edit"))


def models(visit: Visit) -> Flow[Response]:
    """List the models in OpenAI's form beside ours, the aliases first."""
    answer = yield from visit.ask("GET", "/v1/models")
    body = cast("dict[str, Json]", json.loads(answer.body))
    names = [*visit.room.aliases, *names_served(body)]
    return Response(200, wire.JSON, wire.dump({"object": "list", "data": [_row(name) for name in names], **body}))


def model(visit: Visit) -> Flow[Response]:
    """Show one model."""
    name = visit.request.path.rpartition("/models/")[2]
    if name not in (*visit.room.aliases, *(yield from visit.served())):
        text = f"This server has no model {name[:100]!r}; GET /v1/models lists those it has."
        raise RefusedError(404, "model_not_found", text, field="model")
    return Response(200, wire.JSON, wire.dump(_row(name)))


def refuse(refused: RefusedError) -> Response:
    """Write a refusal as OpenAI does, with a numeric Retry-After."""
    headers = dict(wire.JSON)
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    return Response(refused.status, headers, wire.dump({"error": _error(refused)}))


def _error(refused: RefusedError) -> dict[str, Json]:
    """Write OpenAI's error object."""
    usual = (refused.error, "server_error" if refused.status >= SERVER_ERROR else "invalid_request_error")
    code, kind = CODES.get(refused.error, usual)
    return {"message": refused.message, "type": kind, "param": refused.field, "code": code}


def error_event(refused: RefusedError) -> bytes:
    """Write a refusal as the last event of a stream."""
    return _event("error", {"error": _error(refused)})


def prepare(form: Form) -> Form:
    """Rewrite a mask from OpenAI's convention, where the transparent is painted, to ours; runs in a thread."""
    found = _pictures(form, "mask")
    if not found:
        return form
    if found[0].startswith(("http://", "https://")):
        text = "mask: a mask cannot be a URL here; send it as a file or a data URI"
        raise RefusedError(400, "validation_error", text, field="mask")
    try:
        data = imagefile.read_base64(found[0])
    except ValueError as wrong:
        raise RefusedError(400, "validation_error", f"mask: it cannot be used: {wrong}", field="mask") from None
    fill = catalog.get_model(FILL)
    raster = images.inspect("mask", data, fill)
    # A mask without transparency cannot follow OpenAI's convention, but that of the tools that paint what is white.
    readings = [] if isinstance(raster, Fault) else [read_mask(data, raster, fill, one) for one in CONVENTIONS]
    mask = next((one for one in readings if isinstance(one, Mask)), None)
    if mask is None:
        fault = raster if isinstance(raster, Fault) else next(one for one in readings if isinstance(one, Fault))
        text = f"mask: it {fault.allowed}. Make transparent what is to be painted, or white where all is opaque."
        raise RefusedError(400, "validation_error", text, field="mask")
    return Form(form.fields, {**form.files, "mask": [mask.data]})


def _answer(visit: Visit, model: Model, given: Mapping[str, Json], event: str) -> Flow[Response]:
    fields = visit.form.fields
    by_link = fields.get("response_format") == "url"
    size = shape.read(fields.get("size") or _sides(fields))
    body = {
        "prompt": fields.get("prompt"),
        **shape.options(model, size),
        **options.file_type(model, fields.get("output_format")),
        **options.chosen(model, fields),
        **given,
    }
    previews = _Previews(visit, event, _most_previews(fields))
    statuses = yield from visit.make(
        model, options.varied(model, body, options.count("n", fields.get("n"), MOST_AT_ONCE)), previews.add
    )
    made: list[MadeImage] = []
    for status in statuses:
        made.append((yield from visit.fetch(status)))
        visit.show(_completed(event, visit, made[-1]))
    data = [_entry(one, by_link=by_link) for one in made]
    headers = {**wire.JSON, "x-fluxwerk-tasks": ",".join(one.status.task.id for one in made), **_costs(statuses)}
    remarks = "; ".join({one.remarks for one in made if one.remarks})
    if remarks:
        headers["x-fluxwerk-warning"] = remarks
    shown = {"created": int(visit.began), **_facts(made[0]), "data": data}
    return Response(200, headers, wire.dump(shown))


def _pictures(form: Form, name: str) -> list[str]:
    """Return images as base64 or URL: files of a form, texts, or JSON's `images` with `image_url`."""
    if name in form.files:
        return [base64.b64encode(data).decode("ascii") for data in form.files[name]]
    given = form.fields.get(name) or form.fields.get(f"{name}s")
    listed = cast("list[Json]", given) if isinstance(given, list) else [given] if given else []
    return [_text(name, one) for one in listed]


def _text(name: str, one: Json) -> str:
    text = cast("dict[str, Json]", one).get("image_url") if isinstance(one, dict) else one
    if not isinstance(text, str):
        message = f"{name}: send a file, base64, a data URI or image_url; files by id are not kept here"
        raise RefusedError(400, "validation_error", message, field=name)
    return text


def _sides(fields: Mapping[str, Json]) -> str | None:
    width, height = fields.get("width"), fields.get("height")
    return f"{width}x{height}" if width and height else None


def _facts(made: MadeImage) -> dict[str, Json]:
    found = made.raster
    return {
        "size": f"{found.width}x{found.height}",
        "output_format": imagefile.SUFFIX[found.content_type],
        "background": "opaque",
        "quality": "auto",
    }


def _entry(made: MadeImage, *, by_link: bool) -> dict[str, Json]:
    if by_link:
        return {"url": made.status.url}
    return {"b64_json": base64.b64encode(made.data).decode("ascii")}


def _costs(statuses: Sequence[Status]) -> dict[str, str]:
    """Say what the images cost in credits, if the price of each is known."""
    costs = [status.cost for status in statuses]
    known = [cost for cost in costs if cost is not None]
    return {"x-fluxwerk-cost": str(sum(known))} if len(known) == len(costs) else {}


def _completed(event: str, visit: Visit, made: MadeImage) -> bytes:
    image = {"b64_json": _entry(made, by_link=False)["b64_json"], **_facts(made)}
    return _event(f"{event}.completed", {**image, "created_at": int(visit.began), "usage": NO_TOKENS})


def _event(kind: str, body: Mapping[str, Json]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode("ascii"), wire.dump({"type": kind, **body}))


def _most_previews(fields: Mapping[str, Json]) -> int:
    wanted = str(fields.get("partial_images") or 0)
    return min(int(wanted), MOST_PREVIEWS) if wanted.isascii() and wanted[:1].isdigit() and wanted.isdigit() else 0


class _Previews:
    """Sends the first previews of an image that is being made, as many as were asked for."""

    def __init__(self, visit: Visit, event: str, most: int) -> None:
        self._visit = visit
        self._event = event
        self._most = most
        self._sent = 0

    def add(self, preview: str) -> None:
        """Send one more."""
        if self._sent >= self._most:
            return
        head, _, text = preview.partition(",")
        kind = head.removeprefix("data:image/").partition(";")[0]
        body = {"b64_json": text, "partial_image_index": self._sent, "output_format": kind}
        created = {"created_at": int(self._visit.began), "background": "opaque", "quality": "auto"}
        self._visit.show(_event(f"{self._event}.partial_image", {**body, **created}))
        self._sent += 1


def _row(name: str) -> dict[str, Json]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fluxwerk"}
