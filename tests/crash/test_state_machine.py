"""Ledger, server, troubles and crashes in any order, on a pretend clock; the server's books are the judge.

Workers here are nothing but what they hold in memory: a crash throws that away, and only the ledger remains.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fluxwerk import catalog
from fluxwerk.batch import plan
from fluxwerk.drive import drive
from fluxwerk.errors import (
    APIStatusError,
    ConflictError,
    FluxwerkError,
    InDoubtError,
    NoResponseError,
    TaskFailedError,
    TaskTimeoutError,
)
from fluxwerk.ledger.job import IN_FLIGHT, Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.protocol import flow, wire
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.task import TaskRecord as Accepted
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE, KEY
from fluxwerk.types import Flow, HttpRequest, Response, Task
from support import judge

# 200 runs of 50 steps are 10,000 steps; on a developer's machine a fifth of it.
RUNS = 200 if os.environ.get("CI") else 40
LEASE = 6.0
JOBS = 12
# Ten of the twelve jobs at eight credits each.
CAP = Decimal(80)
PLACES = st.integers(0, 1)
TROUBLES = ("none", "lost", "unreachable", "server error", "busy", "refused")


class LateError(Exception):
    """The submit was refused for now, or never left."""


class LedgerAgainstServer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # A server that forgets nothing, so that its books can be read at the end.
        self.face = FaceToFace(seconds=2.0, accounts=Accounts(keep=1e12))
        self.clock = self.face.clock
        self.skew = 0.0
        self.ledger = Ledger.open(":memory:", clock=lambda: self.clock.now() + self.skew)
        # A pool of six slots is full after a few steps.
        rows = [{"prompt": f"image {number}"} for number in range(JOBS)]
        plan(self.ledger, rows, model="flux-kontext-max")
        self.ledger.budget.set_cap(CAP)
        self.held: dict[str, list[Job]] = {}
        self.answers: dict[int, tuple[Job, Task]] = {}
        self.tokens: dict[str, str] = {}
        self.places = [self._enrol(), self._enrol()]
        self.images: dict[int, bytes] = {}

    def teardown(self) -> None:
        """Settle every doubt by the books, work to the end, and compare to the credit."""
        self.ledger.budget.set_cap(None)
        self.held.clear()
        self.answers.clear()
        # Twice, since a lease that a jump of the clock made endless is cut to its length first.
        for _ in range(2):
            self.ledger.leases.expire_dead()
            self.clock.sleep(LEASE + 1)
        self.ledger.leases.expire_dead()
        for row in list(self.ledger.rows(Stage.DOUBTFUL)):
            self._settle_truly(row["id"])
        self._work_to_the_end()
        sums = self.ledger.budget.sums()
        assert sums.count(Stage.SAVED, Stage.FAILED) == JOBS
        assert sums.committed == self._charged()
        self.ledger.close()

    # What may happen.

    @rule(place=PLACES)
    def a_process_is_killed_and_another_starts(self, place: int) -> None:
        self._drop(self._at(place))
        self.places[place] = self._enrol()

    @rule(place=PLACES)
    def a_process_ends_in_good_order_and_another_starts(self, place: int) -> None:
        worker = self._at(place)
        self._drop(worker)
        self.ledger.leases.unregister(worker)
        self.places[place] = self._enrol()

    @rule(seconds=st.sampled_from([2.0, 7.0, 61.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def the_clock_of_the_database_jumps(self, seconds: float) -> None:
        self.skew += seconds

    @rule(place=PLACES)
    def a_process_beats_buries_the_dead_and_adopts_their_jobs(self, place: int) -> None:
        worker = self._at(place)
        if not self.ledger.leases.renew(worker):
            # As in production: it goes on under a new name, and what it holds finds its fences outdated.
            worker = self.places[place] = self._enrol(self.held.pop(worker))
        self.ledger.leases.expire_dead()
        self._adopt(worker)

    @rule(place=PLACES, most=st.integers(1, 8))
    def a_process_claims(self, place: int, most: int) -> None:
        self._claim(self._at(place), most)

    @rule(place=PLACES, trouble=st.sampled_from(TROUBLES), answered=st.booleans())
    def submits_leave(self, place: int, trouble: str, *, answered: bool) -> None:
        worker = self._at(place)
        for job in self._holding(worker, Stage.SUBMITTING):
            if job.id not in self.answers:
                self._submit(worker, job, trouble)
                if answered:
                    self._hear(job.id)

    @rule()
    def answers_arrive(self) -> None:
        self._hear_all()

    @rule(place=PLACES)
    def a_process_polls(self, place: int) -> None:
        self._poll_all(self._at(place))

    @rule(place=PLACES)
    def a_process_downloads_and_saves(self, place: int) -> None:
        self._save_all(self._at(place))

    @rule(chosen=st.integers(0, JOBS - 1))
    def a_webhook_comes(self, chosen: int) -> None:
        prompt = f"image {chosen}"
        task = next((job.task.id for job in self._accepted() if job.order.prompt == prompt), None)
        if task and prompt in self.tokens:
            self.ledger.accept_callback(self.tokens[prompt], task)

    @rule(chosen=st.integers(0, JOBS - 1))
    def a_person_settles_a_doubt_truly(self, chosen: int) -> None:
        if self.ledger.job(chosen + 1).stage is Stage.DOUBTFUL and not self._under_way(chosen + 1):
            self._settle_truly(chosen + 1)

    # What holds whatever happened.

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        assert [prompt for prompt, times in judge.bought(self._accepted()).items() if times > 1] == []

    @invariant()
    def the_ledger_never_knows_less_than_the_bill_and_never_crosses_the_cap(self) -> None:
        committed = self.ledger.budget.sums().committed
        assert self._charged() <= committed
        assert committed <= CAP

    @invariant()
    def no_more_tasks_are_in_flight_than_there_are_slots(self) -> None:
        # What holds a slot is the task at the service.  One whose link died is polled anew without one, and a doubt
        # gives its slot back after a while, by a clock that may jump.
        ended = {job.task.id for job in self._accepted() if job.has_ended(self.clock.now())}
        flying = [row for row in self.ledger.rows(*IN_FLIGHT) if row["task"] not in ended]
        assert sum(not self._was_in_doubt(row["id"]) for row in flying) <= 6

    def _was_in_doubt(self, job: int) -> bool:
        return any(move["after"] == Stage.DOUBTFUL for move in self.ledger.transitions(job))

    @invariant()
    def the_sums_are_those_that_counting_gives(self) -> None:
        judge.assert_sums(self.ledger)

    @invariant()
    def every_paid_task_is_known_or_its_job_is_in_doubt_or_still_submitting(self) -> None:
        rows = {row["id"]: row for row in self.ledger.rows()}
        for job in self._accepted():
            row = rows[int(job.order.prompt.split()[1]) + 1]
            assert row["task"] == job.task.id or row["stage"] in (Stage.DOUBTFUL, Stage.SUBMITTING)

    @invariant()
    def nobody_carries_what_another_carries(self) -> None:
        carried = [job.id for jobs in self.held.values() for job in jobs if self.ledger.job(job.id).fence == job.fence]
        assert len(carried) == len(set(carried))

    # How it is done.

    def _at(self, place: int) -> str:
        return self.places[place]

    def _enrol(self, held: list[Job] | None = None) -> str:
        worker = self.ledger.leases.register(LEASE)
        self.held[worker] = held or []
        return worker

    def _drop(self, worker: str) -> None:
        """Forget what a process had in memory: its jobs, and the answers that were on their way to it."""
        gone = {job.id for job in self.held.pop(worker)}
        self.answers = {number: entry for number, entry in self.answers.items() if number not in gone}

    def _claim(self, worker: str, most: int) -> None:
        try:
            claim = self.ledger.submitting(worker, most, BASE)
        except ConflictError:
            return
        for job in claim.jobs:
            self.tokens[f"image {job.id - 1}"] = job.token or ""
        self._hold(worker, [*self.held[worker], *claim.jobs])

    def _adopt(self, worker: str) -> None:
        self._hold(worker, [*self.held[worker], *self.ledger.adopt(worker, 10)])

    def _hear_all(self) -> None:
        for number in list(self.answers):
            self._hear(number)

    def _poll_all(self, worker: str) -> None:
        for job in self._holding(worker, Stage.SUBMITTED):
            self._poll(worker, job)

    def _save_all(self, worker: str) -> None:
        for job in self._holding(worker, Stage.READY):
            self._save(worker, job)

    def _hold(self, worker: str, jobs: list[Job]) -> None:
        self.held[worker] = jobs

    def _holding(self, worker: str, stage: Stage) -> list[Job]:
        return [job for job in self.held[worker] if job.stage is stage]

    def _accepted(self) -> list[Accepted]:
        return self.face.state.tasks.all(self.clock.now())

    def _charged(self) -> Decimal:
        account = self.face.state.accounts.account(KEY)
        assert account
        return Decimal(1_000_000) - account.credits

    def _replace(self, worker: str, job: Job, move: Callable[[], Job | None]) -> None:
        """Make a move as a process does: what another has moved on is dropped."""
        try:
            moved = move()
        except ConflictError:
            moved = None
        rest = [other for other in self.held[worker] if other.id != job.id]
        self._hold(worker, [*rest, moved] if moved and moved.stage is not Stage.PLANNED else rest)

    def _submit(self, worker: str, job: Job, trouble: str) -> None:
        def send(request: HttpRequest, _budget: float | None) -> Response:
            if trouble in ("unreachable", "busy"):
                raise LateError
            if trouble == "refused":
                return wire.write_refusal(422, "no", error="no", message="no")
            response = self.face.send(request)
            if response.status == 429:
                raise LateError
            if trouble == "lost":
                raise NoResponseError("dropped on purpose")
            oops = wire.write_refusal(500, "oops", error="oops", message="oops")
            return oops if trouble == "server error" else response

        model = catalog.get_model(job.model)
        try:
            task = drive(flow.submit(model, job.request, BASE), send, None, self.clock)
        except LateError:
            self._replace(worker, job, lambda: self.ledger.withdrawn(job, "busy"))
        except InDoubtError:
            self._replace(worker, job, lambda: self.ledger.doubted(job, "lost"))
        except APIStatusError as refusal:
            error: FluxwerkError = refusal
            self._replace(worker, job, lambda: self.ledger.refused(job, error))
        else:
            self.answers[job.id] = job, task

    def _hear(self, number: int) -> None:
        if number in self.answers:
            job, task = self.answers.pop(number)
            worker = next(name for name, jobs in self.held.items() if job in jobs)
            self._replace(worker, job, lambda: self.ledger.submitted(job, task))

    def _under_way(self, number: int) -> bool:
        return number in self.answers or any(
            job.id == number and job.stage is Stage.SUBMITTING for jobs in self.held.values() for job in jobs
        )

    def _poll(self, worker: str, job: Job) -> None:
        assert job.task
        try:
            status = self._drive(flow.wait(job.task, BASE), 1.0)
        except TaskTimeoutError:
            return
        except TaskFailedError as ending:
            error: FluxwerkError = ending
            self._replace(worker, job, lambda: self.ledger.failed(job, error))
            return
        self._replace(worker, job, lambda: self.ledger.ready(job, status))

    def _save(self, worker: str, job: Job) -> None:
        if job.expires is not None and job.expires <= self.clock.now() + self.skew:
            self._replace(worker, job, lambda: self.ledger.expired(job))
            return
        try:
            data = self._drive(flow.download(job.ready_status(), BASE), 60.0)
        except FluxwerkError as ending:
            error = ending
            self._replace(worker, job, lambda: self.ledger.failed(job, error))
            return
        self.images[job.id] = data
        self._replace(worker, job, lambda: self.ledger.saved(job, Saved(f"{job.id}.png", "00")))

    def _drive(self, steps: Flow[object], seconds: float) -> object:
        return drive(steps, self.face.send, self.clock.now() + seconds, self.clock)

    def _settle_truly(self, number: int) -> None:
        prompt = f"image {number - 1}"
        task = next((job.task.id for job in self._accepted() if job.order.prompt == prompt), None)
        if task:
            self.ledger.settle_collect(number, task)
        else:
            self.ledger.settle_resubmit(number)

    def _work_to_the_end(self) -> None:
        worker = self.ledger.leases.register(1e9)
        self.held[worker] = []
        for _ in range(200):
            self._adopt(worker)
            self._claim(worker, 6)
            for job in self._holding(worker, Stage.SUBMITTING):
                self._submit(worker, job, "none")
            self._hear_all()
            self.clock.sleep(3)
            self._poll_all(worker)
            self._save_all(worker)
            if not self.ledger.budget.sums().count(Stage.PLANNED, *IN_FLIGHT, Stage.READY):
                return


TestLedgerAgainstServer = LedgerAgainstServer.TestCase
TestLedgerAgainstServer.settings = settings(
    max_examples=RUNS,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
