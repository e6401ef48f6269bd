"""The service's JSON, written and read: the client uses one half of each pair, the server the other.

The shapes are those of https://api.bfl.ai/openapi.json; where the guide differs, both are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import cast
from urllib.parse import quote

from fluxwerk.catalog.rows import Model
from fluxwerk.errors import (
    APIStatusError,
    AuthenticationError,
    Fault,
    FluxwerkError,
    InsufficientCreditsError,
    InvalidRequestError,
    ModerationError,
    RateLimitError,
    TaskFailedError,
    TaskNotFoundError,
)
from fluxwerk.protocol import trust
from fluxwerk.protocol.idempotency import KEY_HEADER
from fluxwerk.protocol.retry import retry_after
from fluxwerk.types import HttpRequest, Json, Outcome, Pool, Request, Response, Status, Task

JSON = {"content-type": "application/json"}
# A word that is not in this table counts as still running; the deadline bounds the wait.
OUTCOMES = {
    "Pending": Outcome.RUNNING,
    "Reasoning": Outcome.RUNNING,
    "Generating": Outcome.RUNNING,
    "Ready": Outcome.READY,
    "Request Moderated": Outcome.MODERATED,
    "Content Moderated": Outcome.MODERATED,
    "Error": Outcome.FAILED,
    "Failed": Outcome.FAILED,
    "Task not found": Outcome.MISSING,
}
# Other names of these words in webhooks and in other servers of the same API, in lower case without separators.
SYNONYMS = {
    "success": "Ready",
    "succeeded": "Ready",
    "completed": "Ready",
    "failure": "Failed",
    "inputmoderated": "Request Moderated",
    "outputmoderated": "Content Moderated",
}
# The fields in which a failed task gives its reason.
COMPLAINTS = ("error", "details", "message")
# The code of a task that moderation stopped while its status is "Error", without separators.
POLICY_VIOLATION = "contentpolicyviolation"
ADVICE = {
    401: "Check the key: BFL_API_KEY or api_key=; create one at https://dashboard.bfl.ai/get-started.",
    402: "Add credits at https://dashboard.bfl.ai.",
}
# Digits before or behind the point, more than a float has; arithmetic with much longer numbers overflows.
MAGNITUDE = 400
MALFORMED_KEY = "invalid api key"


class MissingResultError(ValueError):
    """A poll says that its task is ready and names no image; the message quotes what it names instead."""


def write_submit(model: Model, request: Request, base: str, key: str = "") -> HttpRequest:
    """Write the POST that asks for an image; `key` is what a repetition will be known by."""
    body = {**request.fields, **model.sends}
    return HttpRequest(
        "POST",
        f"{base}/{model.path.lstrip('/')}",
        dump(body),
        keyed=True,
        pool=Pool(model.pool, model.slots),
        headers={**JSON, KEY_HEADER: key} if key else JSON,
    )


def write_task(task: Task, extra: Mapping[str, Json] | None = None) -> Response:
    """Write the answer to a submit; `extra` holds the fields that a webhook submit adds."""
    body = {
        "id": task.id,
        "polling_url": task.polling_url,
        "cost": task.cost,
        "input_mp": task.input_mp,
        "output_mp": task.output_mp,
        **(extra or {}),
    }
    return Response(200, JSON, dump(body))


def read_task(response: Response, model: str, base: str) -> Task:
    """Read the answer to a submit; raises `ValueError` if it names no task.

    A webhook submit may have no polling URL: the task is then polled at get_result of the base URL.
    """
    body = _object(response.body)
    identity, polling_url = body.get("id"), body.get("polling_url")
    if not isinstance(identity, str) or not identity:
        raise ValueError("the answer names no task")
    if not isinstance(polling_url, str) or not polling_url:
        polling_url = f"{base}/v1/get_result?id={quote(identity, safe='')}"
    numbers = (_decimal(body.get(name)) for name in ("cost", "input_mp", "output_mp"))
    return Task(identity, polling_url, model, *numbers)


def write_poll(task: Task) -> HttpRequest:
    """Write the GET that polls a task, at exactly the URL that the service named."""
    return HttpRequest("GET", task.polling_url, keyed=True)


def write_status(status: Status, *, result: Json = None, preview: Json = None) -> Response:
    """Write the answer to a poll."""
    body = {
        "id": status.task.id,
        "status": status.word,
        "result": result,
        "progress": status.progress,
        "details": status.details,
        "preview": preview,
        "cost": status.cost,
    }
    return Response(200, JSON, dump(body))


def read_status(response: Response, task: Task) -> Status:
    """Read the answer to a poll, whatever its HTTP status; raises `ValueError` if it names no status of the task.

    The service answers polls of failed tasks with 404, 422 or 500 and a body that still names the status.
    """
    body = _object(response.body)
    written = body.get("status", body.get("state"))
    if not isinstance(written, str):
        raise ValueError("the poll names no status")  # noqa: TRY004  (what a caller repeats on)
    word = read_word(written)
    # The error page of a gateway has the status "error" as well, and knows nothing of the task.
    if written not in OUTCOMES and response.status >= 400 and not (word in OUTCOMES and body.get("id") == task.id):
        raise ValueError("the error is not about the task")
    outcome = OUTCOMES.get(word, Outcome.RUNNING)
    if outcome is Outcome.FAILED and any(POLICY_VIOLATION in _letters(body.get(name)) for name in COMPLAINTS):
        outcome = Outcome.MODERATED
    result = cast("dict[str, Json]", body["result"]) if isinstance(body.get("result"), dict) else {}
    url, seed, prompt, engine = (result.get(name) for name in ("sample", "seed", "prompt", "engine"))
    if outcome is Outcome.READY and not (isinstance(url, str) and url):
        raise MissingResultError(f"the task is ready but names no image; its result is {_text(body.get('result'))}")
    cost = body.get("cost") if body.get("cost") is not None else result.get("cost")
    progress = _decimal(body.get("progress"))
    complaints = [_text(body[name]) for name in ("error", "message") if body.get(name)]
    return Status(
        task,
        word,
        outcome,
        url=url if isinstance(url, str) else None,
        seed=seed if isinstance(seed, int) else None,
        prompt=prompt if isinstance(prompt, str) else None,
        cost=_decimal(cost),
        progress=None if progress is None else float(progress),
        details=body.get("details") or (trust.quote(": ".join(complaints)) if complaints else None),
        engine=engine if isinstance(engine, str) else None,
        seconds=_seconds(result) if result else None,
    )


def read_word(word: str) -> str:
    """Return the service's own spelling of a status word, whatever its case and separators; an unknown one as it is."""
    if word in OUTCOMES:
        return word
    letters = _letters(word)
    return SPELLINGS.get(letters) or SYNONYMS.get(letters) or word


def _letters(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "".join(filter(str.isalnum, text)).lower()


SPELLINGS = {_letters(word): word for word in OUTCOMES}


def _seconds(result: Mapping[str, Json]) -> float | None:
    """Read how long the service worked: `duration`, or what lies between `start_time` and `end_time`."""
    duration, start, end = (_decimal(result.get(name)) for name in ("duration", "start_time", "end_time"))
    if duration is None and start is not None and end is not None:
        duration = end - start
    return float(duration) if duration is not None and duration > 0 else None


def read_ending(status: Status) -> FluxwerkError | None:
    """Turn a status that ended the task without an image into the error to raise; `None` for any other status."""
    reason = f": {_text(status.details)}" if status.details else ""
    if status.outcome is Outcome.MODERATED:
        stage = "content" if "contentmoderated" in _letters([status.word, status.details]) else "request"
        what = "what was asked for" if stage == "request" else "the image that was made"
        message = f"Moderation stopped {what}{reason}. Repeating it unchanged will not help."
        reasons = _reasons(status.details)
        return ModerationError(
            message, stage=stage, reasons=reasons, details=status.details, task=status.task, cost=status.cost
        )
    if status.outcome is Outcome.FAILED:
        return TaskFailedError(
            f"The task ended without an image{reason}.", details=status.details, task=status.task, cost=status.cost
        )
    if status.outcome is Outcome.MISSING:
        known_as = trust.quote(status.task.id)
        message = f"The service does not know the task {known_as}; poll exactly the URL that the submit named."
        return TaskNotFoundError(message, details=status.details, task=status.task, cost=status.cost)
    return None


def write_credits(credit: Decimal) -> Response:
    """Write the balance in credits."""
    return Response(200, JSON, dump({"credits": credit}))


def read_credits(response: Response) -> Decimal:
    """Read the balance in credits; raises `ValueError` if there is none."""
    credit = _decimal(_object(response.body).get("credits"))
    if credit is None:
        raise ValueError("the answer names no credits")
    return credit


def write_refusal(
    status: int,
    detail: Json,
    *,
    error: str,
    message: str,
    retry_after: int | None = None,
    details: Json = None,
) -> Response:
    """Write an error for both kinds of readers: `detail` as the live service, the other fields as the guide.

    A `detail` or `details` of `None` is left out; `details` maps each field to its fault, as the guide does.
    """
    body: dict[str, Json] = {"detail": detail, "error": error, "message": message, "details": details}
    body = {name: value for name, value in body.items() if value is not None}
    headers = dict(JSON)
    if retry_after is not None:
        body["retry_after"] = retry_after
        headers["retry-after"] = str(retry_after)
    return Response(status, headers, dump(body))


def read_refusal(response: Response, task: Task | None = None) -> APIStatusError:
    """Turn an error answer into the error to raise, from `detail`, else `error` and `message`, else its text."""
    reason, faults = _complaint(response.body)
    reason = trust.quote(reason)
    status = response.status
    malformed_key = status == 422 and MALFORMED_KEY in reason.lower()
    kind: type[APIStatusError] = {
        400: InvalidRequestError,
        401: AuthenticationError,
        402: InsufficientCreditsError,
        403: AuthenticationError,
        422: InvalidRequestError,
    }.get(status, APIStatusError)
    if malformed_key:
        kind = AuthenticationError
    if status in (429, 503):
        kind = RateLimitError
    advice = ADVICE.get(401 if kind is AuthenticationError else status, "")
    message = f"The service answered {status}" + (f": {reason}" if reason else "")
    text = f"{message.rstrip('.')}." + (f" {advice}" if advice else "")
    return kind(text, status=status, faults=faults, retry_after=retry_after(response.headers), task=task)


def dump(body: Json) -> bytes:
    """Write JSON; a Decimal becomes a number."""
    return json.dumps(body, default=_number, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _number(value: object) -> float | int:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _object(body: bytes) -> dict[str, Json]:
    try:
        value: Json = json.loads(body)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004  (what a caller repeats on)
    return cast("dict[str, Json]", value)


def _decimal(value: Json) -> Decimal | None:
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) <= MAGNITUDE else None


def _complaint(body: bytes) -> tuple[str, tuple[Fault, ...]]:
    try:
        answer = _object(body)
    except ValueError:
        return trust.quote(body.decode("utf-8", "replace")), ()
    detail = answer.get("detail")
    if isinstance(detail, list):
        faults = tuple(_fault(item) for item in cast("list[Json]", detail))
        return "; ".join(f"{fault.field}: {fault.allowed}" for fault in faults), faults
    if detail:
        return _text(detail), ()
    fields = answer.get("details")
    faults = ()
    if isinstance(fields, dict):
        pairs = cast("dict[str, Json]", fields).items()
        faults = tuple(Fault(name, None, _text(text)) for name, text in pairs)
    words = [_text(answer[name]) for name in ("error", "message") if answer.get(name)]
    words += [f"{fault.field}: {fault.allowed}" for fault in faults]
    return ": ".join(words) or trust.quote(body.decode("utf-8", "replace")), faults


def _fault(item: Json) -> Fault:
    if not isinstance(item, dict):
        return Fault("request", None, _text(item))
    entry = cast("dict[str, Json]", item)
    place = entry.get("loc")
    path = [str(part) for part in cast("list[Json]", place)] if isinstance(place, list) else []
    name = ".".join(path[1:] if path[:1] == ["body"] else path)
    return Fault(name or "request", None, _text(entry.get("msg", "is wrong")))


def _reasons(details: Json) -> tuple[str, ...]:
    if not isinstance(details, dict):
        return ()
    found = cast("dict[str, Json]", details).get("Moderation Reasons")
    return tuple(str(reason) for reason in cast("list[Json]", found)) if isinstance(found, list) else ()


def _text(value: Json) -> str:
    return trust.quote(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
