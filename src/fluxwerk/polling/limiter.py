"""How many polls may leave, whatever the schedules of the tasks would like; pure, in seconds of any clock."""

from __future__ import annotations

# Polls in a second, over all tasks of a process.
BUDGET = 200.0
# After a refusal polls are half as many, but never fewer than this, and after so many seconds twice as many again.
LEAST_BUDGET = 2.0
RECOVERY = 30.0
# Polls are counted in slices of a second, so that they neither come in bursts nor in single file; so many are kept.
SLICE, SLICES = 0.1, 1000


class RateLimiter:
    """Lets so many polls through in a second, counted in slices, and half as many for a while after a refusal."""

    def __init__(self, budget: float) -> None:
        self._most = budget
        self._since = self._shut = float("-inf")
        self._taken: dict[int, int] = {}
        self.rate = budget

    def refuse(self, now: float, pause: float) -> None:
        """Let nothing through for so many seconds, and half as many polls after them."""
        # Polls that were under way together are refused together, and count as one.
        if now >= self._shut:
            self._change(max(min(LEAST_BUDGET, self._most), self.rate / 2))
        self._shut = self._since = max(self._shut, now + pause)

    def book(self, now: float, moment: float) -> float:
        """Take a place at that moment or as soon after it as there is one, and return when."""
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
