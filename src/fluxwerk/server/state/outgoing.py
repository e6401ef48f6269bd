"""The webhook of one task as a value: where it goes, and every attempt to deliver it."""

from __future__ import annotations

from dataclasses import dataclass, field

# Seconds to wait after each failed attempt; after the last one the server drops the webhook.
PAUSES = (1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One delivery that was tried: when, in seconds since 1970, and what came of it."""

    at: float
    outcome: str


@dataclass(slots=True)
class OutgoingWebhook:
    """The webhook of one task: `state` is waiting, pending, delivered or dropped; the attempts stand in their order."""

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    state: str = "waiting"
    attempts: list[DeliveryAttempt] = field(default_factory=list[DeliveryAttempt])

    def pause(self, now: float) -> float:
        """How many seconds from now the next attempt is due."""
        if not self.attempts:
            return 0.0
        return max(0.0, self.attempts[-1].at + PAUSES[len(self.attempts) - 1] - now)

    def note(self, outcome: str, now: float, *, acknowledged: bool) -> None:
        """Write an attempt down."""
        self.attempts.append(DeliveryAttempt(now, outcome))
        if acknowledged or self.state == "delivered":
            self.state = "delivered"
        elif len(self.attempts) > len(PAUSES):
            self.state = "dropped"
