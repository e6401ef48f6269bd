"""Limits the polls of a process in each second, whatever the schedules ask for; pure, in seconds of any clock."""

from __future__ import annotations

# The polls in each second, over all tasks of a process.
POLLS_PER_SECOND = 200.0
# A refusal halves the rate, but never below LEAST_RATE; it doubles again after RECOVERY seconds without one.
LEAST_RATE = 2.0
RECOVERY = 30.0
# Polls are counted in slices of this many seconds, so that they are neither bursts nor a queue; SLICES are kept.
SLICE, SLICES = 0.1, 1000


class RateLimiter:
    """Spaces polls to a rate for each second, which is halved for a while after the service refuses one."""

    def __init__(self, rate: float) -> None:
        self._most = rate
        self._since = self._shut = float("-inf")
        self._taken: dict[int, int] = {}
        self.rate = rate

    def refuse(self, now: float, pause: float) -> None:
        """Let no poll through for `pause` seconds, and half as many as before after them."""
        # Polls that were on their way together are refused together, and count once.
        if now >= self._shut:
            self._change(max(min(LEAST_RATE, self._most), self.rate / 2))
        self._shut = self._since = max(self._shut, now + pause)

    def book(self, now: float, moment: float) -> float:
        """Reserve a poll at that moment or as soon after it as the rate allows, and return the moment."""
        if self.rate < self._most and now - self._since >= RECOVERY:
            self._change(min(self._most, self.rate * 2))
            self._since = now
        width = max(SLICE, 1 / self.rate)
        moment = max(moment, self._shut)
        at, room = int(moment / width), max(1, int(self.rate * width))
        while self._taken.get(at, 0) >= room:
            at += 1
        self._taken[at] = self._taken.get(at, 0) + 1
        if len(self._taken) > SLICES:
            self._taken = {place: taken for place, taken in self._taken.items() if place >= int(now / width)}
        return max(moment, at * width)

    def _change(self, rate: float) -> None:
        self.rate, self._taken = rate, {}
