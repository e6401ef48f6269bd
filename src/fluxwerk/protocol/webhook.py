"""Webhooks as values: sign a body, verify a received one, read its contents.

Two schemes are known.  BFL's guide signs the raw body (`X-BFL-Signature: sha256=<hex HMAC-SHA256>`), BFL's
documentation sends the secret itself (`X-Webhook-Secret`).  Neither carries a time or a delivery number, so this
module cannot tell a repeated webhook from a new one: code that acts on a webhook must remember the task ids.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from fluxwerk.errors import InvalidSignatureError, InvalidUsageError, InvalidWebhookError, shorten
from fluxwerk.protocol import trust, wire
from fluxwerk.types import Json, Outcome, Response, Status, Task

SIGNATURE = "X-BFL-Signature"
SECRET = "X-Webhook-Secret"  # noqa: S105  (the name of a header)
PREFIX = "sha256="
# A webhook names a result and never contains it; a prompt of 32,000 tokens still fits.
LARGEST = 256 * 1024
LONGEST_ID = 256


class Headers(Protocol):
    """The headers of a request as any framework has them: a dict, Starlette's, Django's, Werkzeug's."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return pairs of name and value; the case of the names does not matter."""
        ...


def sign(body: bytes, secret: str) -> str:
    """Return the value of `X-BFL-Signature` for this body: "sha256=" and 64 hexadecimal digits."""
    return PREFIX + hmac.digest(_bytes(secret), body, "sha256").hex()


def check(secret: str) -> None:
    """Raise `InvalidUsageError` for an empty secret."""
    if not secret:
        raise InvalidUsageError(
            "The webhook secret is empty. Give the one that was sent as webhook_secret with the submit."
        )


def verify(body: bytes, headers: Headers, secret: str, *, accept_secret_header: bool = False) -> None:
    """Raise `InvalidSignatureError` unless the headers prove that a holder of the secret sent exactly this body.

    `body` is the raw body: JSON that is parsed and written again has another signature.  `accept_secret_header` accepts
    a matching `X-Webhook-Secret` where there is no signature; it proves the sender and not the body, so read the result
    again from the service before you act.
    """
    check(secret)
    signature, sent_secret = _header(headers, SIGNATURE), _header(headers, SECRET)
    if signature is not None:
        if not _equal(signature.strip(), sign(body, secret)):
            raise InvalidSignatureError(_wrong_signature(signature))
    elif sent_secret is None:
        also = f" and no {SECRET}" if accept_secret_header else ""
        raise InvalidSignatureError(f"The webhook has no {SIGNATURE}{also}: anyone may have sent it. {_advice()}")
    elif not accept_secret_header:
        raise InvalidSignatureError(
            f"The webhook has no {SIGNATURE}, only a {SECRET}, which does not prove the body. "
            "Pass accept_secret_header=True if your sender offers no signature."
        )
    elif not _equal(sent_secret.strip(), secret):
        raise InvalidSignatureError(f"The webhook's {SECRET} is not the secret given here. {_advice()}")


def read(body: bytes, task: Task | None = None) -> Status:
    """Read a verified webhook in either of the two known shapes; raises `InvalidWebhookError`.

    `id` or `task_id`, `Ready` or `SUCCESS`, `Error` or `FAILED` become one `Status`.  Its task is `task` if given, and
    otherwise has no polling URL, because a webhook is not trusted to name one.
    """
    said = _object(body)
    identity = _identity(said)
    shown = trust.quote(identity)
    if task is not None and task.id != identity:
        raise InvalidWebhookError(
            f"The webhook is about the task {trust.quote(identity)}, not about {trust.quote(task.id)}.", task=task
        )
    task = task or Task(identity, "")
    shown = trust.quote(identity)
    word = said.get("status")
    if not isinstance(word, str) or not word:
        raise InvalidWebhookError(f"The webhook about the task {shown} names no status.", task=task)
    word = wire.read_word(word)
    result = said.get("result")
    if word == "Ready" and not (isinstance(result, dict) and cast("dict[str, Json]", result).get("sample")):
        # Enough for the next poll, and a webhook has no other purpose.
        return Status(task, word, Outcome.READY)
    try:
        return wire.read_status(Response(200, body=wire.dump({**said, "status": word})), task)
    except (ValueError, RecursionError):  # pragma: no cover  (nothing known gets here; a hook must never break in)
        raise InvalidWebhookError(f"The webhook about the task {shown} cannot be read.", task=task) from None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _equal(given: str, expected: str) -> bool:
    # Bytes, because compare_digest refuses text that is not ASCII, and a forger may send that.
    return hmac.compare_digest(_bytes(given), _bytes(expected))


def _header(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


def _wrong_signature(signature: str) -> str:
    if not signature.strip().startswith(PREFIX):
        return f"The webhook's {SIGNATURE} does not begin with {PREFIX!r}, the only known scheme."
    return (
        f"The webhook's {SIGNATURE} does not match its body: the secret differs, or the body was changed. "
        "Verify the raw body, before a framework parses it."
    )


def _advice() -> str:
    return "Send webhook_secret with every submit, and give the same secret here."


def _object(body: bytes) -> dict[str, Json]:
    if len(body) > LARGEST:
        raise InvalidWebhookError(f"The webhook has {len(body)} bytes; at most {LARGEST} are read.")
    try:
        said: Json = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidWebhookError("The webhook's body is not JSON.") from None
    if not isinstance(said, dict):
        raise InvalidWebhookError("The webhook's body is not a JSON object.")
    return cast("dict[str, Json]", said)


def _identity(said: Mapping[str, Json]) -> str:
    names = [said[name] for name in ("id", "task_id") if said.get(name) is not None]
    if not names:
        raise InvalidWebhookError("The webhook names no task: neither id nor task_id.")
    identity = names[0]
    if not isinstance(identity, str) or not 0 < len(identity) <= LONGEST_ID or not identity.isprintable():
        raise InvalidWebhookError(f"The webhook's task id is not an id: {shorten(identity)}.")
    if names[-1] != identity:
        raise InvalidWebhookError("The webhook names two tasks: its id and its task_id differ.")
    return identity
