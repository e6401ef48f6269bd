"""Webhooks out: what is sent when, as a flow that yields its calls, so that half a minute passes in no time in tests.

The body is the guide's with `task_id` beside `id`; the signature is the HMAC of exactly the bytes that are sent.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from fluxwerk.errors import TransportError
from fluxwerk.protocol import wire
from fluxwerk.protocol.webhook import sign
from fluxwerk.server.address import take_apart
from fluxwerk.server.faults.effects import GARBLED
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.outgoing import OutgoingWebhook
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Call, Flow, HttpRequest, Json

# Seconds in which a receiver has to acknowledge with a 2xx.
ACKNOWLEDGE_SECONDS = 30.0
ACKNOWLEDGED = range(200, 300)
CODES = {"Request Moderated": "content_policy_violation", "Content Moderated": "content_policy_violation"}


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """Where webhooks may go: https anywhere, plain http only to `hosts` by name and into `networks` by address.

    `tell_secret` sends the secret itself as X-Webhook-Secret too, for receivers that compare it.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    tell_secret: bool = False

    def fault(self, url: str) -> str | None:
        """Say why a webhook may not go to a URL, or `None` if it may be tried; the guard judges the address later."""
        parts = take_apart(url)
        if parts is None:
            return "Input should be a plain http or https URL with a host, in ASCII, without a user or a password"
        host = parts.hostname or ""
        if parts.scheme == "https" or host in self.hosts or self._is_inside(host):
            return None
        return "Webhooks go by https; plain http only to hosts that the operator of this server allows"

    def _is_inside(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # A name: whether it leads inside is known once it is resolved.
            return bool(self.networks)
        networks = (ipaddress.ip_network(text) for text in self.networks)
        return any(address in network for network in networks if network.version == address.version)


def write_body(job: TaskRecord, result: Json, at: float) -> bytes:
    """Write the body of a webhook about the end of a task."""
    body: dict[str, Json] = {"id": job.task.id, "task_id": job.task.id, "status": job.word}
    if job.word == "Ready":
        body["result"] = result
    else:
        said = cast("dict[str, Json]", job.details or {})
        body["error"] = said.get("error") or CODES.get(job.word, "internal_error")
        body["message"] = said.get("message") or job.word
        body["details"] = job.details
    body["cost"] = job.settled
    body["timestamp"] = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return wire.dump(body)


def request(webhook: OutgoingWebhook, body: bytes, policy: WebhookPolicy, *, forged: bool = False) -> HttpRequest:
    """Write the POST, signed if the submit brought a secret."""
    headers = {**wire.JSON, "user-agent": "fluxwerk-webhook"}
    if webhook.secret is not None:
        headers["x-bfl-signature"] = sign(body, "forged" if forged else webhook.secret)
        if policy.tell_secret:
            headers["x-webhook-secret"] = webhook.secret
    return HttpRequest("POST", webhook.url, body, headers=headers)


def deliver(
    webhook: OutgoingWebhook,
    body: bytes,
    policy: WebhookPolicy,
    clock: Callable[[], float],
    *,
    saved: Callable[[], object] = lambda: None,
    meet: Callable[[], FaultRule | None] = lambda: None,
) -> Flow[None]:
    """Send a notice until it is acknowledged or given up, from where it stands.

    `saved` hears of every change, and `meet` says what trouble strikes an attempt.
    """
    webhook.state = "pending"
    while webhook.state == "pending":
        rule = meet()
        deed = rule.do if rule else ""
        if deed == "drop":
            webhook.note("dropped on demand", clock(), acknowledged=True)
            webhook.state = "dropped"
            saved()
            return
        after = webhook.pause(clock()) + (rule.seconds if rule and deed == "delay" else 0.0)
        sent = request(webhook, GARBLED if deed == "garble" else body, policy, forged=deed == "forge")
        acknowledged = yield from _attempt(webhook, Call(sent, after), clock)
        if deed == "duplicate" and acknowledged:
            yield from _attempt(webhook, Call(sent), clock)
        saved()


def _attempt(webhook: OutgoingWebhook, call: Call, clock: Callable[[], float]) -> Flow[bool]:
    try:
        response = yield call
    except TransportError as lost:
        acknowledged, outcome = False, str(lost)
    else:
        acknowledged, outcome = response.status in ACKNOWLEDGED, f"answered {response.status}"
    webhook.note(outcome, clock(), acknowledged=acknowledged)
    return acknowledged
