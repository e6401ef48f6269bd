"""News of an account's tasks as server-sent events: each task is reported when something about it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from fluxwerk.protocol import wire
from fluxwerk.server.handlers import poll, tasks
from fluxwerk.server.state.account import Account
from fluxwerk.server.state.search import Search
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Json

# Asks the state where it does not hold up the event loop.
Ask: TypeAlias = Callable[[Callable[[], bytes]], Awaitable[bytes]]
# Seconds between two looks at the tasks, and between two signs of life where nothing happens.
LOOK_SECONDS, SIGN_OF_LIFE_SECONDS = 0.25, 10.0
# How many of the newest tasks are watched; a page shows older ones as they were when it asked.
WATCHED = 100


async def stream(state: ServerState, account: Account, seconds: float, ask: Ask) -> AsyncGenerator[bytes]:
    """Yield one event for every task that changed, for at most `seconds`; the browser then connects again."""
    seen: dict[str, bytes] = {}
    yield b"retry: 1000\n\n"
    yield await ask(lambda: _changes(state, account, seen)) + b"event: ready\ndata: {}\n\n"
    quiet, waited = 0.0, 0.0
    while waited < seconds and not state.is_closing:
        await asyncio.sleep(LOOK_SECONDS)
        quiet, waited = quiet + LOOK_SECONDS, waited + LOOK_SECONDS
        told = await ask(lambda: _changes(state, account, seen))
        if told:
            quiet = 0.0
            yield told
        if quiet >= SIGN_OF_LIFE_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"


def _changes(state: ServerState, account: Account, seen: dict[str, bytes]) -> bytes:
    now = state.now()
    watched = state.tasks.search(account.id, Search(), now, WATCHED)
    present = {job.task.id: _written(state, job, now) for job in watched}
    told = (b"event: task\ndata: " + text + b"\n\n" for name, text in present.items() if seen.get(name) != text)
    written = b"".join(told)
    if len(watched) < WATCHED:
        # Nothing was only pushed out of sight, so what is missing is kept no more.
        written += b"".join(
            b"event: gone\ndata: " + wire.dump({"id": name}) + b"\n\n" for name in seen.keys() - present.keys()
        )
    seen.clear()
    seen.update(present)
    return written


def _written(state: ServerState, job: TaskRecord, now: float) -> bytes:
    body: dict[str, Json] = tasks.row(state, job)
    if not job.has_ended(now):
        body["preview"] = poll.preview(job)
    return wire.dump(body)
