"""How an answer is spoilt: what of it is sent, how slowly, and whether the line breaks; no line is touched here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from fluxwerk.protocol import wire
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.types import Response

PAGE = b"<!DOCTYPE html><html><title>Bad gateway</title><h1>502 Bad gateway</h1></html>"
HTML = {"content-type": "text/html; charset=utf-8"}
GARBLED = b'{"id": "0b1e4a7c", "status": "Rea'


@dataclass(frozen=True, slots=True)
class FaultEffect:
    """What happens on the line: a pause, a drip of `rate` bytes a second, a break after `sent` bytes of the body.

    `sent` of `None` sends everything; `reset` breaks before the head; `holds` stays silent instead of breaking.
    """

    seconds: float = 0.0
    rate: float | None = None
    sent: int | None = None
    reset: bool = False
    holds: bool = False

    def lasts(self, body: bytes) -> float:
        """How many seconds the whole answer takes."""
        return self.seconds + (len(body) / self.rate if self.rate else 0.0)

    @property
    def breaks(self) -> bool:
        """Whether the client never gets all of it."""
        return self.reset or self.sent is not None


@dataclass(frozen=True, slots=True)
class SpoiltResponse(Response):
    """An answer that does not arrive as it should."""

    effect: FaultEffect = FaultEffect()


def instead(rule: FaultRule) -> Response:
    """Write the answer of a rule that strikes before anything was accepted."""
    match rule.do:
        case "page":
            return Response(rule.status or 200, HTML, PAGE)
        case "redirect":
            return Response(302, {"location": rule.to})
        case "garble":
            return Response(200, wire.JSON, GARBLED)
        case "reset":
            return SpoiltResponse(200, effect=FaultEffect(reset=True))
        case _:
            return _status(rule)


def spoil(rule: FaultRule, answer: Response) -> Response:
    """Spoil an answer that was given after all."""
    part = int(len(answer.body) * rule.share)
    lines = {
        "cut": FaultEffect(sent=part),
        "stall": FaultEffect(sent=part, holds=True),
        "drip": FaultEffect(rate=rule.rate),
        "delay": FaultEffect(seconds=rule.seconds),
    }
    if rule.do in lines:
        return SpoiltResponse(answer.status, answer.headers, answer.body, lines[rule.do])
    match rule.do:
        case "type":
            return replace(answer, headers={**answer.headers, "content-type": "text/plain"})
        case "truncate":
            return replace(answer, body=answer.body[:part])
        case "word" | "forget":
            return _worded(answer, rule.word if rule.do == "word" else "Task not found")
        case _:
            return instead(rule)


def _status(rule: FaultRule) -> Response:
    status = rule.status or 500
    text = f"Trouble on demand: {status}"
    answer = wire.write_refusal(status, text, error="trouble", message=text)
    if rule.retry_after is None:
        return answer
    return replace(answer, headers={**answer.headers, "retry-after": str(rule.retry_after)})


def _worded(answer: Response, word: str) -> Response:
    body = {**json.loads(answer.body), "status": word, "result": None, "cost": None}
    return replace(answer, body=wire.dump(body))
