"""Questions about images and their price: sizes, seeds, formats, and when what is charged."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from decimal import Decimal
from typing import cast

from fluxwerk import imagefile
from fluxwerk.conform.asker import SIDE, Asker, Made, body_of
from fluxwerk.conform.check import Checks, Observed
from fluxwerk.types import Json

IMAGES = Checks("images")
MONEY = Checks("money")


def _grey(side: int) -> bytes:
    """Write a whole grey PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * side) * side)
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return imagefile.PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _image_of(ask: Asker, made: Made) -> bytes:
    return ask.get(made.link, keyed=False).body


def _measured(ask: Asker, made: Made) -> Json:
    found = imagefile.measure(_image_of(ask, made))
    return [found.content_type, *found.size] if found else ["no image"]


@IMAGES.add(shared=True)
def size_as_asked(ask: Asker) -> Observed:
    """Which size and format has an image of 64 × 64?"""
    measured = _measured(ask, ask.shared())
    return Observed(measured, measured[1:] == [SIDE, SIDE])


@IMAGES.add(images=1)
def size_off_the_grid(ask: Asker) -> Observed:
    """Which size has an image of 100 × 90?"""
    return Observed(_measured(ask, ask.make(width=100, height=90)))


@IMAGES.add(shared=True)
def seed_is_named(ask: Asker) -> Observed:
    """Which seed does the result name if seed 7 was asked for?"""
    result = ask.shared().last.get("result")
    return Observed(cast("dict[str, Json]", result).get("seed") if isinstance(result, dict) else None)


@IMAGES.add(images=1, shared=True)
def same_seed(ask: Asker) -> Observed:
    """Is the image of the same request and seed the same, byte for byte?"""
    one, other = (hashlib.sha256(_image_of(ask, made)).digest() for made in (ask.shared(), ask.make(seed=7)))
    return Observed(one == other)


@IMAGES.add(images=1)
def format_png(ask: Asker) -> Observed:
    """Which format has an image that was asked for as PNG?"""
    measured = _measured(ask, ask.make(output_format="png"))
    return Observed(measured[0], measured[0] == "image/png")


@IMAGES.add(images=1)
def unknown_field(ask: Asker) -> Observed:
    """Is a field that no model has ignored?"""
    return Observed(ask.submit(nonsense=1).status)


@IMAGES.add(images=1)
def surplus_references(ask: Asker) -> Observed:
    """Is one reference image more than the model takes ignored?"""
    picture = base64.b64encode(_grey(SIDE)).decode()
    surplus = ask.model.references + 1
    fields: dict[str, Json] = {f"input_image_{number}": picture for number in range(2, surplus + 1)}
    return Observed(ask.submit(None, input_image=picture, **fields).status)


@IMAGES.add(images=1)
def seed_as_text(ask: Asker) -> Observed:
    """Is a seed taken that is a number in quotes?"""
    return Observed(ask.submit(seed="7").status)


@IMAGES.add(images=1)
def size_of_zero(ask: Asker) -> Observed:
    """Is a width of 0 taken?"""
    return Observed(ask.submit(width=0).status)


@IMAGES.add(images=1)
def seed_of_null(ask: Asker) -> Observed:
    """Is a seed of null taken?"""
    return Observed(ask.submit(seed=None).status)


@MONEY.add(shared=True)
def cost_as_estimated(ask: Asker) -> Observed:
    """Does the answer to a submit name the cost that the catalogue estimates?"""
    cost = ask.shared().submitted.get("cost")
    return Observed([cost, float(ask.price)], None if cost is None else Decimal(str(cost)) == ask.price)


@MONEY.add(shared=True)
def final_cost(ask: Asker) -> Observed:
    """Does the finished task name the same cost as its submit?"""
    made = ask.shared()
    return Observed([made.submitted.get("cost"), made.last.get("cost")])


@MONEY.add(shared=True)
def megapixels(ask: Asker) -> Observed:
    """Which megapixels does a small image count?"""
    submitted = ask.shared().submitted
    return Observed([submitted.get("input_mp"), submitted.get("output_mp")])


@MONEY.add(images=1)
def when_it_is_charged(ask: Asker) -> Observed:
    """By how much does the balance fall at the submit, and by how much until the end?"""
    before = ask.balance()
    submitted = body_of(ask.submit())
    at_the_submit = ask.balance()
    ask.poll_to_the_end(submitted)
    return Observed([float(before - at_the_submit), float(before - ask.balance())])


@MONEY.add(images=2)
def same_key_twice(ask: Asker) -> Observed:
    """Are two submits with the same Idempotency-Key the same task?"""
    headers = {"idempotency-key": f"conform-{hashlib.sha256(str(ask.clock.now()).encode()).hexdigest()}"}
    one, other = (body_of(ask.submit(headers)).get("id") for _ in range(2))
    return Observed(one == other)


@MONEY.add(images=1)
def refusals_are_free(ask: Asker) -> Observed:
    """Is a submit that is refused charged?"""
    before = ask.balance()
    ask.refused({"prompt": 7})
    return Observed(float(before - ask.balance()), before == ask.balance())


@MONEY.add(images=1, needs="moderated_prompt")
def moderated(ask: Asker) -> Observed:
    """How does a moderated task end, and what does it cost?"""
    before = ask.balance()
    made = ask.make(prompt=ask.moderated_prompt)
    return Observed([made.polls[-1].status, made.last.get("status"), sorted(made.last), float(before - ask.balance())])
