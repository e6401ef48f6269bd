"""How the server ends: SIGTERM lets running tasks finish and be collected, Ctrl-C or a second SIGTERM does not."""

from __future__ import annotations

import signal
from types import FrameType

import uvicorn

from fluxwerk.server.state.state import ServerState

# How long a finished image waits to be collected before the server ends, in seconds.
COLLECTION_SECONDS = 10.0


class Draining(uvicorn.Server):
    """Serves until a signal ends it, then refuses new tasks, and ends when nothing is left or patience is over."""

    def __init__(self, config: uvicorn.Config, state: ServerState, patience: float) -> None:
        super().__init__(config)
        self._state = state
        self._patience = patience
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to close on the first SIGTERM, end on anything more."""
        if sig != signal.SIGTERM or self._state.is_closing:
            super().handle_exit(sig, frame)
            return
        self._state.close()
        self._until = self._state.clock() + self._patience

    async def on_tick(self, counter: int) -> bool:
        """Say ten times a second whether it is time to end."""
        if self._state.is_closing:
            now = self._state.clock()
            self.should_exit = self.should_exit or now >= self._until or self._state.is_quiet(COLLECTION_SECONDS)
        return await super().on_tick(counter)
