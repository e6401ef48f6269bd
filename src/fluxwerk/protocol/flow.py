"""The steps to an image as generators, which yield calls and receive responses: submit, wait, download.

A driver throws `TransportError` in when no answer arrives, and `TaskTimeoutError` when the deadline leaves no room for
the next call.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from urllib.parse import urljoin

from fluxwerk import imagefile
from fluxwerk.catalog.rows import Model
from fluxwerk.errors import (
    APIStatusError,
    ConnectionFailedError,
    FluxwerkError,
    InDoubtError,
    LinkExpiredError,
    NoResponseError,
    RateLimitError,
    TaskFailedError,
    TaskTimeoutError,
    TransportError,
    UntrustedURLError,
)
from fluxwerk.protocol import retry, sample, trust, wire
from fluxwerk.protocol.idempotency import KEY_HEADER, Promises, read_promise
from fluxwerk.protocol.retry import Plan
from fluxwerk.types import (
    Call,
    Event,
    Flow,
    HttpRequest,
    OnEvent,
    Outcome,
    Request,
    Response,
    Status,
    Task,
    ignore_event,
)

OK = range(200, 300)
# The service is too busy for another task and accepts the same submit later.
BUSY = frozenset({429, 503})
REDIRECTING = range(300, 400)
SERVER_ERRORS = range(500, 600)
# Refusals of a repeated submit by a server that keeps keys: it would have answered with the task, had it taken one.
NOT_TAKEN = frozenset({400, 402, 404, 405, 413, 422})
KEY_REUSED = b"idempotency_key_reused"
DEAD_LINK = frozenset({400, 401, 403, 404, 410})


def submit(
    model: Model,
    request: Request,
    base: str,
    on_event: OnEvent = ignore_event,
    others: Sequence[str] = (),
    key: str = "",
    promises: Promises | None = None,
    *,
    once: bool = False,
) -> Flow[Task]:
    """Ask for one image and return its task.

    A submit that never left is repeated, at the base URLs in `others` in turn if there are any, and so is one that the
    service refuses for now; `once` raises instead.  A submit that left and was not answered may have been charged: only
    where `promises` say that the server keeps its `key` it is repeated; otherwise it raises `InDoubtError`.
    """
    bases, failures, attempt, after = (base, *others), 0, 0, 0.0
    while True:
        attempt += 1
        http = wire.write_submit(model, request, bases[failures % len(bases)], key)
        try:
            response = yield Call(http, after, retry.JITTER)
            trouble = _doubt_of(response, model)
        except ConnectionFailedError as lost:
            failures += 1
            if once or lost.permanent or failures >= retry.UNREACHABLE_SUBMITS:
                raise
            after = retry.backoff(failures)
            on_event(Event("retrying", attempt=attempt, reason=str(lost)))
            continue
        except NoResponseError as lost:
            trouble, response = lost, None
        if trouble:
            doubt = _in_doubt(model, trouble)
            doubt.request, doubt.base, doubt.key = request, bases[failures % len(bases)], key
            response = yield from _ask_again(http, model, doubt, promises or Promises(), on_event)
        assert response is not None
        if response.status in OK:
            break
        refusal = _read_refusal(response, http)
        after = _pause_after_refusal(refusal, attempt)
        if once:
            raise refusal
        on_event(Event("retrying", attempt=attempt, reason=str(refusal)))
    task = wire.read_task(response, model.name, bases[failures % len(bases)])
    on_event(Event("submitted", task, attempt))
    return task


def repeat(
    model: Model, request: Request, base: str, key: str, promises: Promises, on_event: OnEvent = ignore_event
) -> Flow[Task]:
    """Send a submit in doubt again, to a server that keeps its key, and return its task.

    Raises the refusal if the server proves that it took no such submit, and `InDoubtError` if nothing is proved.
    """
    http = wire.write_submit(model, request, base, key)
    doubt = _in_doubt(model, NoResponseError("its answer was lost earlier"))
    response = yield from _ask_again(http, model, doubt, promises, on_event)
    if response.status not in OK:
        raise _read_refusal(response, http)
    return wire.read_task(response, model.name, base)


def tell_doubt(model: Model, doubt: InDoubtError) -> str:
    """Say what is in doubt, and why."""
    return f"The submit to {model.name} left and may have been charged ({str(doubt.__cause__).rstrip('.')})."


def wait(task: Task, base: str, on_event: OnEvent = ignore_event, plan: Plan | None = None) -> Flow[Status]:
    """Poll until the task is ready and return that status; raises `TaskFailedError` if it ends without an image.

    A poll that fails costs nothing and is repeated until the deadline.  `plan` returns the pause before each, in
    seconds.
    """
    http = wire.write_poll(task)
    plan = plan or retry.geometric()
    after, waited, attempt, troubles, lately = plan(None), 0.0, 0, _Troubles(), ""
    # A pause is not cut short after a refusal, nor while the service does not know the task yet.
    early = True
    with _about(task):
        trust.check_polling(task.polling_url, base)
        while True:
            attempt += 1
            # A webhook may have cut the pause short, where that was allowed.
            waited += 0.0 if early else after
            try:
                response = yield Call(http, after, retry.JITTER if troubles.in_a_row else 0.0, early)
                status = _read_poll(response, task)
            except TaskTimeoutError as late:
                raise _explain(late, lately) from None
            except (NoResponseError, ConnectionFailedError, ValueError, APIStatusError) as trouble:
                after, early = troubles.pause(trouble), not isinstance(trouble, RateLimitError)
                lately = f"The last poll failed: {trouble}"
                on_event(Event("retrying", task, attempt, reason=str(trouble)))
                continue
            troubles = _Troubles()
            lately = "" if status.word in wire.OUTCOMES else _name_unknown(status.word)
            early = status.outcome is not Outcome.MISSING
            on_event(Event("polled", task, attempt, status))
            # The plan receives the last status too: that is what it learns from.
            after = plan(status)
            if status.outcome is Outcome.READY:
                on_event(Event("ready", task, attempt, status))
                return status
            ending = wire.read_ending(status)
            if ending and not (status.outcome is Outcome.MISSING and waited < retry.GRACE):
                raise ending


def download(
    status: Status, base: str, on_event: OnEvent = ignore_event, delivery_hosts: Collection[str] = ()
) -> Flow[bytes]:
    """Fetch the image of a ready task and return its bytes once they are whole.

    A failed or cut-off download is repeated until the deadline; a dead link is replaced once by polling again.
    `delivery_hosts` may deliver by plain http, where the base is of plain http too.
    """
    task, url, failures, renewed = status.task, status.url or "", 0, False
    with _about(task):
        while True:
            inline = sample.read_inline_image(url)
            after = retry.backoff(failures) if failures else 0.0
            try:
                response = (
                    Response(200, body=inline)
                    if inline is not None
                    else (yield from _follow(url, base, after, delivery_hosts))
                )
            except (NoResponseError, ConnectionFailedError) as lost:
                if lost.permanent:
                    raise
                reason = str(lost)
            else:
                fault = imagefile.fault(response.body) if response.status == 200 else f"answered {response.status}"
                if fault is None:
                    on_event(Event("downloaded", task, failures + 1, status))
                    return response.body
                if inline is not None or response.status in DEAD_LINK:
                    if renewed:
                        raise _dead_twice(fault, inline)
                    url, renewed = (yield from wait(task, base)).url or "", True
                reason = fault
            failures += 1
            on_event(Event("retrying", task, failures, reason=f"download: {reason}"))


def glance(task: Task, base: str) -> Flow[Status | None]:
    """Poll once and return the status, or `None` if none can be read; repeats nothing, and raises no ending."""
    try:
        trust.check_polling(task.polling_url, base)
        return wire.read_status((yield Call(wire.write_poll(task))), task)
    except (TransportError, TaskTimeoutError, UntrustedURLError, ValueError):
        return None


def ask_credits(base: str, after: float = 0.0) -> Flow[Decimal]:
    """Ask for the account's balance in credits; a lost request is repeated, since it costs nothing."""
    http = HttpRequest("GET", f"{base}/v1/credits", keyed=True)
    failures = 0
    while True:
        try:
            response = yield Call(http, retry.backoff(failures) if failures else after, retry.JITTER)
            if response.status in OK:
                return _read_credits(response)
            raise _read_refusal(response, http)
        except (NoResponseError, ConnectionFailedError, APIStatusError) as trouble:
            failures += 1
            if _is_final(trouble) or _is_permanent(trouble) or failures >= retry.UNREACHABLE_SUBMITS:
                raise


def ask_steady_credits(base: str, pause: float) -> Flow[Decimal]:
    """Ask for the balance until it stands still for `pause` seconds: charges may arrive late."""
    before = yield from ask_credits(base)
    while True:
        now = yield from ask_credits(base, pause)
        if now == before:
            return now
        before = now


def _read_refusal(response: Response, http: HttpRequest) -> APIStatusError:
    """Read a refusal, and add what was asked where the base URL may be wrong."""
    refusal = wire.read_refusal(response)
    hint = trust.explain_refusal(response.status, http.url, response.headers.get("location", ""))
    if not hint:
        return refusal
    return type(refusal)(f"{refusal} {hint}", status=refusal.status, faults=refusal.faults)


def _read_credits(response: Response) -> Decimal:
    try:
        return wire.read_credits(response)
    except ValueError as unreadable:
        raise NoResponseError(f"The answer could not be read: {unreadable}.") from unreadable


@contextmanager
def _about(task: Task) -> Generator[None]:
    """Attach the task to every error that passes: the task is what was paid for."""
    try:
        yield
    except FluxwerkError as error:
        error.task = error.task or task
        raise


def _in_doubt(model: Model, trouble: Exception) -> InDoubtError:
    doubt = InDoubtError()
    doubt.__cause__ = trouble
    told = tell_doubt(model, doubt)
    doubt.args = (f"{told} It was not repeated. Check your account's usage before you send it again.",)
    return doubt


def _doubt_of(response: Response, model: Model) -> Exception | None:
    """Say why the answer to a submit leaves open whether it was taken; `None` if it does not."""
    if response.status in OK:
        try:
            wire.read_task(response, model.name, "")
        except ValueError as unreadable:
            return ValueError(f"its answer could not be read: {unreadable}")
        return None
    refusal = wire.read_refusal(response)
    return refusal if refusal.status in SERVER_ERRORS and not _is_busy(refusal) else None


def _ask_again(
    http: HttpRequest, model: Model, doubt: InDoubtError, promises: Promises, on_event: OnEvent
) -> Flow[Response]:
    """Send the submit again until an answer settles it: its task, or a refusal which proves that it was not taken.

    Raises `doubt` where the server keeps no keys, and when nothing settles it in time.
    """
    after = 0.0
    for failures in range(1, retry.REPEATED_SUBMITS + 1):
        try:
            if not (yield from _is_kept(http, promises, after)):
                raise doubt
            on_event(Event("retrying", attempt=failures, reason=str(doubt.__cause__)))
            response = yield Call(http, max(after, retry.backoff(failures)), retry.JITTER)
        except TaskTimeoutError:
            raise doubt from doubt.__cause__
        except TransportError as lost:
            unheard = promises.seconds(http.url) is None
            if lost.permanent or (unheard and failures >= retry.UNREACHABLE_SUBMITS):
                raise doubt from doubt.__cause__
            after = retry.backoff(failures)
            continue
        if _is_clear(response, model):
            return response
        after = min(retry.retry_after(response.headers) or 0.0, retry.LONGEST_RETRY_AFTER)
    raise doubt


def _is_kept(http: HttpRequest, promises: Promises, after: float) -> Flow[bool]:
    """Whether the server keeps the submit's key; one that was never heard is asked, at no cost."""
    if KEY_HEADER not in http.headers:
        return False
    known = promises.seconds(http.url)
    if known is None:
        asking = HttpRequest("GET", urljoin(http.url, "/v1/credits"), keyed=True)
        known = read_promise((yield Call(asking, after, retry.JITTER)))
    return known > 0


def _is_clear(response: Response, model: Model) -> bool:
    """Whether the answer to a repetition settles the first submit.

    A refusal does so only from the server that keeps the keys: a proxy before it would not know what was taken.
    """
    if response.status in OK:
        return _doubt_of(response, model) is None
    return response.status in NOT_TAKEN and read_promise(response) > 0 and KEY_REUSED not in response.body


def _is_busy(refusal: APIStatusError) -> bool:
    return isinstance(refusal, RateLimitError) and (refusal.status == 429 or refusal.retry_after is not None)


def _pause_after_refusal(refusal: APIStatusError, attempt: int) -> float:
    asked = refusal.retry_after
    if not _is_busy(refusal) or (asked or 0.0) > retry.LONGEST_RETRY_AFTER:
        raise refusal
    return asked or retry.backoff(attempt)


def _read_poll(response: Response, task: Task) -> Status:
    try:
        return wire.read_status(response, task)
    except ValueError:
        if response.status in OK:
            raise
        raise wire.read_refusal(response, task) from None


class _Troubles:
    """Counts the polls that failed in a row, by kind: when to stop, and how long to pause before the next."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self._refusals = 0
        self._without_result = 0

    def pause(self, trouble: Exception) -> float:
        """Count one more failed poll and return the seconds to pause after it; raises what ends the wait."""
        self.in_a_row += 1
        self._refusals = self._refusals + 1 if _is_final(trouble) else 0
        self._without_result = self._without_result + 1 if isinstance(trouble, wire.MissingResultError) else 0
        if self._refusals >= retry.REFUSED_POLLS or _is_permanent(trouble):
            raise trouble
        if self._without_result >= retry.POLLS_WITHOUT_RESULT:
            raise TaskFailedError(
                f"No image came: {self._without_result} polls in a row say that {trouble}. "
                "The task may have been charged: give its id to the service's support."
            ) from None
        return _pause_after_trouble(trouble, self.in_a_row)


def _explain(late: TaskTimeoutError, lately: str) -> TaskTimeoutError:
    """Add what the last poll brought to the error of a deadline that has passed."""
    return TaskTimeoutError(f"{late.args[0]} {lately}", task=late.task) if lately else late


def _name_unknown(word: str) -> str:
    return f"The last status was {trust.quote(word)!r}, which this release does not know."


def _dead_twice(fault: str, inline: bytes | None) -> FluxwerkError:
    if inline is not None:
        return TaskFailedError(f"The result holds an image that cannot be used, and so did a fresh poll: {fault}.")
    return LinkExpiredError("The delivery link was dead, and so was a fresh one; poll the task again later.")


def _is_final(trouble: Exception) -> bool:
    return (
        isinstance(trouble, APIStatusError)
        and trouble.status not in SERVER_ERRORS
        and not isinstance(trouble, RateLimitError)
    )


def _is_permanent(trouble: Exception) -> bool:
    return isinstance(trouble, TransportError) and trouble.permanent


def _pause_after_trouble(trouble: Exception, failures: int) -> float:
    asked = (trouble.retry_after if isinstance(trouble, RateLimitError) else None) or 0.0
    if asked > retry.LONGEST_RETRY_AFTER:
        raise trouble
    return asked or retry.backoff(failures)


def _follow(url: str, base: str, after: float, hosts: Collection[str]) -> Flow[Response]:
    hops = 0
    while True:
        trust.check_delivery(url, base, hosts)
        response = yield Call(HttpRequest("GET", url), after, retry.JITTER)
        target = response.headers.get("location")
        if response.status not in REDIRECTING or not target or hops == retry.DELIVERY_REDIRECTS:
            return response
        try:
            url, after, hops = urljoin(url, target), 0.0, hops + 1
        except ValueError:
            raise UntrustedURLError("The delivery redirected to something that is not a URL.") from None
