"""The part of a run that asks the balance about jobs in doubt, while nobody submits and nothing is in flight."""

from __future__ import annotations

from math import inf

from fluxwerk.batch.run import OnDoubt, Run, RunProgress
from fluxwerk.drive import WALL, drive_async
from fluxwerk.errors import ConflictError, FluxwerkError, InDoubtError
from fluxwerk.ledger.doubts import Settlement
from fluxwerk.protocol import flow

# Seconds for which all submits are held at a time; a process that dies meanwhile holds them no longer.
HOLD_SECONDS = 30.0
BALANCE_TIMEOUT = 20.0


class Settler:
    """Settles what the balance can explain: before the first submit of a run, and when nothing else is left to do."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rebuys = run.options.rebuy
        self._is_used = run.options.exclusive and run.options.on_doubt in (OnDoubt.SETTLE, OnDoubt.STOP)
        self._weighed: set[int] = set()
        # Whether a balance is wanted: the first is what later ones are compared with.
        self.is_due = self._is_used

    async def is_wanted(self) -> bool:
        """Whether a run that has nothing else to do has doubts which no balance was asked about."""
        if not self._is_used or self._is_stopped:
            return False
        in_play = await self._run.record(self._run.ledger.doubts.in_play)
        self.is_due = bool(set(in_play) - self._weighed)
        return self.is_due

    async def settle(self, worker: str) -> float:
        """Settle, if the moment is right; returns in how many seconds to try again, 0 if it is done."""
        run, doubts = self._run, self._run.ledger.doubts
        if self._is_stopped:
            self.is_due = False
            return 0.0
        if not await run.record(lambda: doubts.hold(worker, HOLD_SECONDS)):
            return 1.0
        if not await run.record(doubts.is_quiet):
            return 0.2
        in_play = await run.record(doubts.in_play)
        wait = run.options.witness_after - min(in_play.values(), default=inf)
        if wait > 0:
            return min(wait, HOLD_SECONDS / 2)
        try:
            steps = flow.ask_steady_credits(run.base, run.options.steady)
            balance = await drive_async(steps, run.send, WALL.now() + BALANCE_TIMEOUT)
            rebuys = self._rebuys
            settlements = await run.record(lambda: doubts.weigh(worker, balance, rebuys))
        except ConflictError:
            return 1.0
        except FluxwerkError as silent:
            run.report(RunProgress("unsettled", text=f"The balance could not be read. {silent}"))
        else:
            for settlement in settlements:
                self._report(settlement)
        self.is_due, self._weighed = False, set(in_play)
        await run.record(lambda: doubts.release(worker))
        return 0.0

    @property
    def _is_stopped(self) -> bool:
        """Whether the run ends for another reason than doubts, which it would still settle."""
        return self._run.end is not None and not isinstance(self._run.error, InDoubtError)

    def _report(self, settlement: Settlement) -> None:
        self._rebuys -= settlement.rebuys
        settled = len(settlement.lost) + len(settlement.again) + len(settlement.rebought)
        self._run.report(RunProgress("settled" if settled else "unsettled", text=settlement.explanation.text))
