"""Questions about keys, the balance and the paths of a server."""

from __future__ import annotations

from fluxwerk.conform.asker import Asker, body_of, refusal_of
from fluxwerk.conform.check import Checks, Observed
from fluxwerk.protocol.idempotency import read_promise

ACCOUNT = Checks("account")
PATHS = Checks("paths")
OK, MISSING, WRONG_METHOD = 200, 404, 405
WRONG_KEY = "00000000-0000-4000-8000-000000000000"
LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")


@ACCOUNT.add()
def balance(ask: Asker) -> Observed:
    """What does the balance look like?"""
    answer = ask.get("/v1/credits")
    body = body_of(answer)
    return Observed([answer.status, sorted(body)], answer.status == OK and "credits" in body)


@ACCOUNT.add()
def without_a_key(ask: Asker) -> Observed:
    """What is answered without a key?"""
    answer = ask.get("/v1/credits", keyed=False)
    return Observed(refusal_of(answer), answer.status in (401, 403))


@ACCOUNT.add()
def unknown_key(ask: Asker) -> Observed:
    """What is answered to a key that nobody has?"""
    answer = ask.get("/v1/credits", keyed=False, x_key=WRONG_KEY)
    return Observed(refusal_of(answer), answer.status in (401, 403) or None)


@ACCOUNT.add()
def malformed_key(ask: Asker) -> Observed:
    """What is answered to a malformed key?"""
    answer = ask.get("/v1/credits", keyed=False, x_key="not a key")
    return Observed(refusal_of(answer), answer.status in (401, 403, 422))


@ACCOUNT.add()
def bearer_key(ask: Asker) -> Observed:
    """Is a key taken as a bearer token?"""
    return Observed(ask.get("/v1/credits", keyed=False, authorization=f"Bearer {WRONG_KEY}").status)


@ACCOUNT.add()
def limit_headers(ask: Asker) -> Observed:
    """Which headers tell of limits?"""
    headers = ask.get("/v1/credits").headers
    return Observed([name for name in LIMIT_HEADERS if name in headers])


@ACCOUNT.add()
def idempotency_promise(ask: Asker) -> Observed:
    """Does the server promise to keep the keys of submits?"""
    return Observed(read_promise(ask.get("/v1/credits")) > 0)


@ACCOUNT.add()
def head_of_the_balance(ask: Asker) -> Observed:
    """Is HEAD answered as GET?"""
    return Observed(ask.get("/v1/credits", method="HEAD").status)


@PATHS.add()
def unknown_path(ask: Asker) -> Observed:
    """What is answered at an unknown path?"""
    answer = ask.get("/v1/nothing-is-here")
    return Observed(refusal_of(answer), answer.status == MISSING)


@PATHS.add()
def unknown_path_without_a_key(ask: Asker) -> Observed:
    """Is an unknown path looked at before the key?"""
    return Observed(ask.get("/v1/nothing-is-here", keyed=False).status)


@PATHS.add()
def unknown_model(ask: Asker) -> Observed:
    """What is answered to a submit to an unknown model?"""
    answer = ask.refused({"prompt": "x"}, path="/v1/flux-99")
    return Observed(refusal_of(answer), answer.status == MISSING)


@PATHS.add()
def get_instead_of_post(ask: Asker) -> Observed:
    """What is answered to GET where images are asked for?"""
    answer = ask.get(ask.path)
    return Observed(refusal_of(answer), answer.status == WRONG_METHOD)


@PATHS.add()
def post_instead_of_get(ask: Asker) -> Observed:
    """What is answered to POST where tasks are polled?"""
    return Observed(ask.get("/v1/get_result?id=x", method="POST").status)


@PATHS.add()
def openapi(ask: Asker) -> Observed:
    """Is there an OpenAPI document, and does it name the model?"""
    answer = ask.get("/openapi.json", keyed=False)
    paths = body_of(answer).get("paths")
    return Observed([answer.status, isinstance(paths, dict) and ask.path in paths])
