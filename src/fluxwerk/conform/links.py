"""Questions about the links that open images, about limits, and about webhooks."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from fluxwerk.conform.asker import Asker, body_of, host_of, polling_url, refusal_of
from fluxwerk.conform.check import Checks, Observed
from fluxwerk.errors import InvalidSignatureError
from fluxwerk.protocol import webhook

LINKS = Checks("links")
LIMITS = Checks("limits")
WEBHOOKS = Checks("webhooks")
OK = 200
SECRET = "a-secret-of-this-run"  # noqa: S105  (it signs nothing but the webhooks of this run)
WEBHOOK_SECONDS = 60.0
REGIONS = {"https://api.bfl.ai": "https://api.us.bfl.ai"}
TELLING = re.compile(r"content-type|content-length|cache-control|accept-ranges|access-control-allow-origin")


@LINKS.add(shared=True, varies=True)
def delivery_host(ask: Asker) -> Observed:
    """Which host delivers the image?"""
    return Observed(host_of(ask.shared().link))


@LINKS.add(shared=True)
def link_without_a_key(ask: Asker) -> Observed:
    """Does the link open the image without a key?"""
    status = ask.get(ask.shared().link, keyed=False).status
    return Observed(status, status == OK)


@LINKS.add(shared=True)
def link_headers(ask: Asker) -> Observed:
    """Which headers come with the image?"""
    headers = ask.get(ask.shared().link, keyed=False).headers
    return Observed(sorted(name for name in headers if TELLING.fullmatch(name)))


@LINKS.add(shared=True)
def link_parameters(ask: Asker) -> Observed:
    """Which parameters has the link?"""
    return Observed(sorted(name for name, _ in parse_qsl(urlsplit(ask.shared().link).query)))


@LINKS.add(images=1)
def link_life(ask: Asker) -> Observed:
    """For how many minutes is the link good, as it says itself?"""
    made = ask.make()
    ends = dict(parse_qsl(urlsplit(made.link).query)).get("se")
    date = made.polls[-1].headers.get("date")
    if not ends or not date:
        return Observed("not said")
    now = datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    return Observed(round((datetime.fromisoformat(ends) - now).total_seconds() / 60))


@LINKS.add(shared=True)
def link_with_head(ask: Asker) -> Observed:
    """Is HEAD answered at the link?"""
    return Observed(ask.get(ask.shared().link, keyed=False, method="HEAD").status)


@LINKS.add(shared=True)
def link_in_part(ask: Asker) -> Observed:
    """Is a range of the image delivered?"""
    return Observed(ask.get(ask.shared().link, keyed=False, range="bytes=0-9").status)


@LINKS.add(shared=True)
def forged_link(ask: Asker) -> Observed:
    """What is answered to a link whose signature is wrong?"""
    answer = ask.get(ask.shared().link[:-4] + "AAAA", keyed=False)
    return Observed(refusal_of(answer), answer.status != OK)


@LIMITS.add(images=1)
def too_many_tasks(ask: Asker) -> Observed:
    """What is answered when more tasks are in flight than the account has slots?"""
    for _ in range(ask.model.slots + 1):
        answer = ask.submit()
        if answer.status != OK:
            headers = sorted(name for name in answer.headers if name == "retry-after" or name.startswith("x-ratelimit"))
            return Observed({**refusal_of(answer), "headers": headers}, answer.status == 429)  # noqa: PLR2004
    return Observed("every submit was taken")


@LIMITS.add()
def another_region(ask: Asker) -> Observed:
    """Does the key work in another region, with the same balance?"""
    other = REGIONS.get(ask.base)
    if other is None:
        return Observed("one region")
    answer = ask.get(f"{other}/v1/credits")
    return Observed([answer.status, body_of(answer).get("credits") == float(ask.balance())])


@WEBHOOKS.add(images=1, needs="webhook")
def webhook_submit_fields(ask: Asker) -> Observed:
    """What does the answer to a submit with a webhook name?"""
    answer = ask.submit(webhook_url=ask.webhook)
    return Observed(sorted(body_of(answer)), answer.status == OK)


@WEBHOOKS.add(images=1, needs="webhook")
def webhook_payload(ask: Asker) -> Observed:
    """What does a webhook name, and how is it signed?"""
    submitted = body_of(ask.submit(webhook_url=ask.webhook, webhook_secret=SECRET))
    came = ask.calls.about(str(submitted.get("id")), WEBHOOK_SECONDS)
    if came is None:
        return Observed("none came", fits=False)
    headers, body = came
    try:
        webhook.verify(body, headers, SECRET)
    except InvalidSignatureError:
        signed = False
    else:
        signed = True
    named = sorted(name for name in headers if name.startswith("x-"))
    return Observed({"names": sorted(json.loads(body)), "headers": named, "signed": signed}, signed)


@WEBHOOKS.add(images=1, needs="webhook")
def poll_beside_a_webhook(ask: Asker) -> Observed:
    """Can a task with a webhook be polled too?"""
    submitted = body_of(ask.submit(webhook_url=ask.webhook))
    return Observed(ask.get(polling_url(ask.base, submitted)).status)
