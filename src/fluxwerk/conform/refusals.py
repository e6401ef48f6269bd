"""Questions about submits that should be refused: which status, which names, which faults."""

from __future__ import annotations

from fluxwerk.conform.account import WRONG_KEY
from fluxwerk.conform.asker import Asker, refusal_of
from fluxwerk.conform.check import Checks, ConformCheck, Observed
from fluxwerk.types import Json

REFUSALS = Checks("refusals")
INVALID = (400, 422)

# name, question, body
BODIES: tuple[tuple[str, str, Json], ...] = (
    ("no-body", "an empty body", b""),
    ("not-json", "a body that is not JSON", b"{prompt"),
    ("a-list", "a list instead of an object", []),
    ("no-prompt", "a body without a prompt", {"width": 64, "height": 64}),
    ("prompt-a-number", "a prompt that is a number", {"prompt": 7}),
    ("width-a-word", "a width that is a word", {"prompt": "x", "width": "wide"}),
    ("width-too-small", "a width of 8", {"prompt": "x", "width": 8, "height": 64}),
    ("width-negative", "a negative width", {"prompt": "x", "width": -64, "height": 64}),
    ("width-a-fraction", "a width of 64.5", {"prompt": "x", "width": 64.5, "height": 64}),
    ("seed-a-word", "a seed that is a word", {"prompt": "x", "seed": "lucky"}),
    ("seed-a-fraction", "a seed of 1.5", {"prompt": "x", "seed": 1.5}),
    ("tolerance-too-high", "a safety tolerance of 99", {"prompt": "x", "safety_tolerance": 99}),
    ("tolerance-negative", "a safety tolerance of -1", {"prompt": "x", "safety_tolerance": -1}),
    ("format-unknown", "an unknown output format", {"prompt": "x", "output_format": "gif"}),
    ("webhook-no-url", "a webhook that is no URL", {"prompt": "x", "webhook_url": "nowhere"}),
    ("webhook-scheme", "a webhook of another scheme", {"prompt": "x", "webhook_url": "ftp://example.com/x"}),
    ("two-faults", "two faults at once", {"prompt": 7, "width": "wide"}),
)
# Of these nobody documents whether they are refused or taken, so each may buy an image.
OPEN_BODIES: tuple[tuple[str, str, Json], ...] = (
    ("too-large", "a size of 4096 × 4096", {"prompt": "x", "width": 4096, "height": 4096}),
    ("seed-negative", "a negative seed", {"prompt": "x", "width": 64, "height": 64, "seed": -1}),
    ("image-no-picture", "an input image that is no picture", {"prompt": "x", "input_image": "bm90IGFuIGltYWdl"}),
    ("image-not-reachable", "an input image at 127.0.0.1", {"prompt": "x", "input_image": "http://127.0.0.1:9/x.png"}),
)


def _refused(name: str, words: str, body: Json, *, sure: bool) -> ConformCheck:
    def ask(asker: Asker) -> Observed:
        answer = asker.refused(body)
        return Observed(refusal_of(answer), answer.status in INVALID if sure else None)

    return ConformCheck(name, REFUSALS.group, f"What is answered to {words}?", ask, images=0 if sure else 1)


REFUSALS.found += [_refused(*one, sure=True) for one in BODIES]
REFUSALS.found += [_refused(*one, sure=False) for one in OPEN_BODIES]


@REFUSALS.add()
def submit_without_a_key(ask: Asker) -> Observed:
    """What is answered to a submit without a key?"""
    answer = ask.refused({"prompt": "x"}, keyed=False)
    return Observed(refusal_of(answer), answer.status in (401, 403))


@REFUSALS.add()
def submit_with_an_unknown_key(ask: Asker) -> Observed:
    """What is answered to a submit with a key that nobody has?"""
    answer = ask.refused({"prompt": "x"}, keyed=False, x_key=WRONG_KEY)
    return Observed(refusal_of(answer), answer.status in (401, 403) or None)


@REFUSALS.add()
def key_before_body(ask: Asker) -> Observed:
    """Is the key looked at before the body?"""
    return Observed(ask.refused(b"{prompt", keyed=False).status)


@REFUSALS.add(images=1)
def json_as_plain_text(ask: Asker) -> Observed:
    """Is JSON read under another content type?"""
    return Observed(ask.submit({"content-type": "text/plain"}).status)


@REFUSALS.add(images=1)
def empty_prompt(ask: Asker) -> Observed:
    """Is an empty prompt taken?"""
    return Observed(ask.submit(prompt="").status)
