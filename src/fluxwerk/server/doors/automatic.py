"""The door of AUTOMATIC1111's web UI: `/sdapi/v1/`, as chat applications call it.

FLUX has no negative prompt, sampler or scheduler, so these are taken and have no effect.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import cast

from fluxwerk import catalog
from fluxwerk.catalog.rows import Model, Option
from fluxwerk.protocol import wire
from fluxwerk.server.doors import options, shape
from fluxwerk.server.doors.refusal import RefusedError
from fluxwerk.server.doors.visit import FILL, MadeImage, Visit
from fluxwerk.types import Flow, Json, Response

MOST_IN_BATCH = 10
# What the web UI has and FLUX has not: one entry where clients want to choose, else none.
LISTS: Mapping[str, Json] = {
    "samplers": [{"name": "Euler", "aliases": ["euler"], "options": {}}],
    "schedulers": [{"name": "simple", "label": "Simple", "aliases": [], "default_rho": -1, "need_inner_model": False}],
    "upscalers": [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}],
    "latent-upscale-modes": [{"name": "None"}],
    "sd-vae": [],
    "sd-modules": [],
    "loras": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "prompt-styles": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "cmd-flags": {},
}


def text_to_image(visit: Visit) -> Flow[Response]:
    """Make a batch of images of a prompt."""
    model = yield from _model(visit)
    return (yield from _answer(visit, model, {}))


def image_to_image(visit: Visit) -> Flow[Response]:
    """Make a batch of images of a prompt and images; what is white in a mask is painted."""
    fields = visit.form.fields
    images = [str(one) for one in cast("list[Json]", fields.get("init_images") or [])]
    if not images:
        raise RefusedError(422, "validation_error", "init_images: at least one image is needed", field="init_images")
    if fields.get("inpainting_mask_invert"):
        text = "inpainting_mask_invert: a mask is not inverted here; send one whose white part is painted"
        raise RefusedError(422, "validation_error", text, field="inpainting_mask_invert")
    model = yield from _model(visit)
    mask = fields.get("mask")
    if mask and "mask" not in model.options:
        model = catalog.get_model(FILL)
    given = options.place_images(model, images)
    if mask:
        given["mask"] = mask
    return (yield from _answer(visit, model, given))


def show_options(visit: Visit) -> Flow[Response]:
    """Say which model is chosen."""
    model = yield from visit.model(visit.room.chosen(visit.account))
    return _json({"sd_model_checkpoint": model.name, "samples_format": "png"})


def set_options(visit: Visit) -> Flow[Response]:
    """Choose the account's model for the requests that name none."""
    wanted = visit.form.fields.get("sd_model_checkpoint")
    if wanted:
        yield from visit.model(wanted)
        visit.room.choose(visit.account, str(wanted))
    return _json({})


def models(visit: Visit) -> Flow[Response]:
    """List the models, the aliases first."""
    names = [*visit.room.aliases, *(yield from visit.served())]
    rows = [
        {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
        for name in names
    ]
    return _json(rows)


def listed(name: str) -> Callable[[Visit], Flow[Response]]:
    """Return the door to one of the lists."""

    def show(_: Visit) -> Flow[Response]:
        yield from ()
        return _json(LISTS[name])

    return show


def progress(visit: Visit) -> Flow[Response]:
    """Say how far the account's requests are, with a preview where the engine makes one."""
    yield from ()
    others = list(visit.room.others(visit))
    shares = [share for other in others for share in other.shares()]
    preview = next((other.preview for other in others if other.preview), "")
    began = min((other.began for other in others), default=visit.began)
    state = {
        "skipped": False,
        "interrupted": any(other.interrupted for other in others),
        "job": "txt2img" if others else "",
        "job_count": len(shares),
        "job_timestamp": datetime.fromtimestamp(began, UTC).strftime("%Y%m%d%H%M%S"),
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    share = sum(shares) / len(shares) if shares else 0.0
    body = {"progress": share, "eta_relative": 0.0, "state": state, "textinfo": None}
    return _json({**body, "current_image": preview.partition(",")[2] or None})


def interrupt(visit: Visit) -> Flow[Response]:
    """Cancel what the account's requests wait for; these are answered without images."""
    for other in list(visit.room.others(visit)):
        other.interrupted = True
        yield from other.give_up()
    return _json({})


def refuse(refused: RefusedError) -> Response:
    """Write a refusal as the web UI does."""
    body = {"error": refused.error, "detail": refused.message, "body": "", "errors": refused.message}
    headers = {**wire.JSON} if refused.retry_after is None else {**wire.JSON, "retry-after": str(refused.retry_after)}
    return Response(refused.status, headers, wire.dump(body))


def _model(visit: Visit) -> Flow[Model]:
    settings = visit.form.fields.get("override_settings")
    wanted = cast("dict[str, Json]", settings).get("sd_model_checkpoint") if isinstance(settings, dict) else None
    return (yield from visit.model(wanted or visit.room.chosen(visit.account)))


def _answer(visit: Visit, model: Model, given: Mapping[str, Json]) -> Flow[Response]:
    fields = visit.form.fields
    body = {
        "prompt": fields.get("prompt") or "",
        **shape.options(model, _size(fields)),
        **options.file_type(model, None),
        **_own(model, fields),
        **given,
    }
    made: list[MadeImage] = []
    try:
        statuses = yield from visit.make(model, options.varied(model, body, _count(fields)))
        for status in statuses:
            made += [(yield from visit.fetch(status))]
    except RefusedError:
        # An interrupted request is answered with what there is.
        if not visit.interrupted:
            raise
    images = [base64.b64encode(one.data).decode("ascii") for one in made]
    plain = {name: value for name, value in fields.items() if name not in ("init_images", "mask")}
    return _json({"images": images, "parameters": plain, "info": json.dumps(_info(fields, model, made))})


def _info(fields: Mapping[str, Json], model: Model, made: list[MadeImage]) -> dict[str, Json]:
    prompt = str(fields.get("prompt") or "")
    seeds = [one.status.seed for one in made]
    size = {"width": made[0].raster.width, "height": made[0].raster.height} if made else {}
    texts = [f"{prompt}\nSeed: {seed}, Model: {model.name}" for seed in seeds]
    first = seeds[0] if seeds else None
    alike = {"prompt": prompt, "all_prompts": [prompt] * len(seeds), "negative_prompt": "", "seed": first}
    return {**alike, "all_seeds": seeds, "infotexts": texts, **size, "sd_model_name": model.name}


def _size(fields: Mapping[str, Json]) -> tuple[int, int] | None:
    width, height = fields.get("width"), fields.get("height")
    return shape.read(f"{width}x{height}") if width and height else None


def _count(fields: Mapping[str, Json]) -> int:
    return options.count("batch_size", fields.get("batch_size"), MOST_IN_BATCH) * options.count(
        "n_iter", fields.get("n_iter"), 1
    )


def _own(model: Model, fields: Mapping[str, Json]) -> dict[str, Json]:
    """Read the options that FLUX has too; the web UI's defaults suit other models, so they are brought into range."""
    named = {**fields, "guidance": fields.get("distilled_cfg_scale")}
    if named.get("seed") in (-1, "-1"):
        del named["seed"]
    given = options.chosen(model, named)
    for name in ("steps", "guidance"):
        if isinstance(given.get(name), int | float):
            given[name] = _within(model.options[name], given[name])
    return given


def _within(option: Option, value: float) -> float:
    read = int if option.type == "integer" else float
    low = value if option.minimum is None else max(value, read(option.minimum))
    return low if option.maximum is None else min(low, read(option.maximum))


def _json(body: Json) -> Response:
    return Response(200, wire.JSON, wire.dump(body))
