"""Deliveries share what is scarce: a slow host or a busy account makes only itself wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from fluxwerk.server.shares import Shares


async def held(shares: Shares, stack: AsyncExitStack, host: str, account: str) -> bool:
    """Whether a place is given without waiting."""
    taking = asyncio.ensure_future(stack.enter_async_context(shares.hold(host, account)))
    for _ in range(10):
        await asyncio.sleep(0)
    if not taking.done():
        taking.cancel()
        return False
    return True


def test_a_host_that_never_answers_does_not_delay_another():
    async def scene():
        shares = Shares(host=4, account=64, total=256)
        async with AsyncExitStack() as stack:
            first = [await held(shares, stack, "slow.test", "one") for _ in range(40)]
            assert first == [True] * 4 + [False] * 36
            assert await held(shares, stack, "quick.test", "one")

    asyncio.run(scene())


def test_forty_hosts_that_never_answer_do_not_delay_the_next():
    async def scene():
        shares = Shares(host=4, account=64, total=256)
        async with AsyncExitStack() as stack:
            assert all([await held(shares, stack, f"slow-{n}.test", "one") for n in range(40)])
            assert await held(shares, stack, "quick.test", "one")

    asyncio.run(scene())


def test_an_account_that_fills_its_share_does_not_delay_another():
    async def scene():
        shares = Shares(host=4, account=3, total=8)
        async with AsyncExitStack() as stack:
            assert [await held(shares, stack, f"{n}.test", "one") for n in range(4)] == [True] * 3 + [False]
            assert await held(shares, stack, "other.test", "two")

    asyncio.run(scene())


def test_a_share_without_holders_takes_no_memory():
    async def scene():
        shares = Shares(host=1, account=1, total=1)
        for n in range(100):
            async with shares.hold(f"{n}.test", f"{n}"):
                pass
        assert (shares._host._users, shares._account._users) == ({}, {})

    asyncio.run(scene())
