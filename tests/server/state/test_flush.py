"""One flush of the disk for all who wait, and none of them goes on before it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fluxwerk.errors import StorageError
from fluxwerk.server.state.store import DiskStore


def commit(store: DiskStore) -> None:
    with store.database.write() as transaction:
        transaction.run("insert into fact values ('x', zeroblob(1)) on conflict (name) do nothing")


def test_everything_that_was_committed_before_a_wait_is_flushed_after_it(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)

    async def scene() -> None:
        for _ in range(3):
            commit(store)
            waits = [asyncio.create_task(store.flushed()) for _ in range(50)]
            await asyncio.gather(*waits)
            assert store._flush._flushed == store.database.commits

    asyncio.run(scene())
    store.close()


def test_a_disk_that_cannot_be_flushed_is_told_to_who_waits(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    commit(store)
    os.close(store._flush._log)
    with pytest.raises(StorageError, match="cannot be flushed"):
        asyncio.run(store.flushed())
    store.database.close()


def test_what_is_flushed_is_not_flushed_again(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    commit(store)
    asyncio.run(store.flushed())
    handle = store._flush._log
    os.close(handle)
    # Nothing was committed since, so nothing is flushed.
    asyncio.run(store.flushed())
    assert store._flush._flushed == store.database.commits
    store.database.close()
