"""A clock that jumps: hours pass in microseconds, and nothing is left to chance."""

from __future__ import annotations

from fluxwerk.drive import Listen
from fluxwerk.types import Call


class PretendClock:
    """Stands still until it is told to sleep; seconds, starting at `start` (by default the day FLUX.2 came out)."""

    def __init__(self, start: float = 1_764_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Say the pretend time."""
        return self._now

    def sleep(self, seconds: float, listen: Listen | None = None) -> None:
        """Jump, unless what is listened for has happened already: during a jump nothing else happens."""
        if listen is None:
            self._now += seconds
            return
        with listen(_ignore) as early:
            self._now += 0.0 if early else seconds

    async def sleep_async(self, seconds: float, listen: Listen | None = None) -> None:
        """Jump, and let whatever else is ready on the event loop go first."""
        import asyncio  # noqa: PLC0415

        self.sleep(seconds, listen)
        await asyncio.sleep(0)

    def jump_to(self, moment: float) -> None:
        """Go to a moment, never back."""
        self._now = max(self._now, moment)

    def stretch(self, call: Call) -> float:
        """Add no jitter, so that every run is the same."""
        return call.after


def _ignore() -> None:
    pass
