from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fluxwerk.batch import Batch, plan
from fluxwerk.batch.run import RunEnd, RunOptions, RunProgress
from fluxwerk.batch.saver import Saver
from fluxwerk.client.client import AsyncClient
from fluxwerk.client.credentials import Credentials
from fluxwerk.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InDoubtError,
    InsufficientCreditsError,
    NoResponseError,
    RateLimitError,
    StorageError,
)
from fluxwerk.ledger.callback import address, read_token
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.job import Job, Stage
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.polling.history import PollingHistory
from fluxwerk.protocol import wire
from fluxwerk.storage import Folder
from fluxwerk.testing import loopback
from fluxwerk.testing.face_to_face import BASE, KEY, blank
from fluxwerk.types import HttpRequest, Response
from support import judge
from support.site import QUICK, Site, first_times, honest, refusal


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, 5)


def test_every_job_is_carried_to_its_file(site: Site):
    assert site.run() == ""
    assert site.count(Stage.SAVED) == 5
    judge.judge(site.ledger, site.accepted)
    assert site.ledger.budget.sums().spent == judge.charged(site.accepted) == 15


def test_a_run_with_nothing_to_do_ends_at_once(tmp_path: Path):
    assert Site(tmp_path).run() == ""


def test_of_the_intent_the_ledger_hears_before_the_service_does(site: Site):
    seen: list[Stage] = []

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if request.method == "POST":
            prompt = request.body.decode()
            with Ledger.open(site.path) as other:
                rows = [row for row in other.rows() if Ledger.job_fields(row)["prompt"] in prompt]
                seen.append(Stage(rows[0]["stage"]))
        return answer()

    site.intercept = intercept
    site.run()
    assert seen == [Stage.SUBMITTING] * 5


def test_a_busy_service_is_asked_again_and_nothing_is_in_doubt(site: Site):
    site.intercept = first_times(3, refusal(429, 0))
    assert site.run() == ""
    assert len(site.submits) == 8
    assert site.count(Stage.SAVED) == 5
    assert [row["attempt"] for row in site.ledger.rows()].count(2) == 3


def test_a_submit_that_never_left_is_repeated(site: Site):
    site.intercept = first_times(2, ConnectionFailedError("refused"))
    assert site.run() == ""
    assert site.count(Stage.SAVED) == 5
    assert "held" in site.kinds()
    assert "released" in site.kinds()


def test_an_unreachable_service_ends_the_run_with_its_reason(site: Site):
    """A service that cannot be reached for long ends the run with its reason."""
    site.intercept = first_times(1000, ConnectionFailedError("no route to the service"))
    with pytest.raises(ConnectionFailedError, match="no route"):
        site.run(RunOptions(lease=1.0, endurance=0.0))
    assert site.count(Stage.PLANNED) == 5


def test_a_refused_certificate_stops_the_run_at_once_with_nothing_in_doubt(site: Site):
    site.intercept = first_times(1000, ConnectionFailedError("its certificate was refused", permanent=True))
    with pytest.raises(ConnectionFailedError, match="certificate was refused"):
        site.run()
    assert (site.count(Stage.PLANNED), site.count(Stage.DOUBTFUL)) == (5, 0)
    assert len(site.submits) <= 5


@pytest.mark.parametrize(("part", "stage"), [("get_result", Stage.SUBMITTED), ("/results/", Stage.READY)])
def test_a_refused_certificate_keeps_an_image_that_is_paid_for(site: Site, part: str, stage: Stage):
    """A certificate that is refused on the way to an image does not lose what was paid for."""

    def refused(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if part in request.url:
            raise ConnectionFailedError("its certificate was refused", permanent=True)
        return answer()

    site.intercept = refused
    with pytest.raises(ConnectionFailedError, match="certificate was refused"):
        site.run()
    assert site.count(stage) > 0
    assert site.count(Stage.FAILED) == 0
    site.intercept = honest
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


def test_an_image_above_the_size_limit_fails_its_job_at_once(site: Site):
    def huge(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if "/results/" in request.url:
            raise NoResponseError("the answer is larger than 134217728 bytes", permanent=True)
        return answer()

    site.intercept = huge
    site.run()
    assert site.count(Stage.FAILED) == 5
    assert all("larger than 134217728 bytes" in row["reason"] for row in site.ledger.rows())


def test_a_submit_that_was_not_answered_is_never_repeated(site: Site):
    site.intercept = first_times(2, NoResponseError("cut off"))
    site.run()
    assert len(site.submits) == 5
    assert (site.count(Stage.SAVED), site.count(Stage.DOUBTFUL)) == (3, 2)
    assert site.ledger.budget.sums().doubtful == 6


def test_a_service_that_answers_nothing_puts_only_a_few_jobs_in_doubt(tmp_path: Path):
    site = Site(tmp_path, 40)
    site.intercept = first_times(1000, refusal(500))
    with pytest.raises(InDoubtError):
        site.run(RunOptions(lease=1.0, concurrency=2, max_doubts=3))
    assert 3 <= site.count(Stage.DOUBTFUL) <= 4
    assert site.count(Stage.PLANNED) >= 36


@pytest.mark.parametrize(("status", "kind"), [(402, InsufficientCreditsError), (403, AuthenticationError)])
def test_without_credits_or_rights_the_run_stops_and_nothing_is_lost(site: Site, status: int, kind: type[Exception]):
    site.intercept = first_times(1000, refusal(status))
    with pytest.raises(kind):
        site.run()
    assert site.count(Stage.PLANNED) == 5
    site.intercept = honest
    assert site.run() == ""
    assert site.count(Stage.SAVED) == 5


def test_a_refused_request_has_failed_and_the_others_go_on(site: Site):
    site.intercept = first_times(1, refusal(422))
    assert site.run() == ""
    assert (site.count(Stage.SAVED), site.count(Stage.FAILED)) == (4, 1)
    assert site.ledger.budget.sums().spent == 12


def test_after_too_many_failures_nothing_more_is_submitted(tmp_path: Path):
    site = Site(tmp_path, 30)
    site.intercept = first_times(1000, refusal(422))
    ended = site.run(RunOptions(lease=1.0, concurrency=2, max_failures=4))
    assert "at most 4 may" in ended
    assert 5 <= site.count(Stage.FAILED) <= 6


def test_a_moderated_task_costs_what_its_status_named(site: Site):
    """A task that moderation stopped has failed with the cost the status named."""

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if "get_result" in request.url:
            return Response(200, wire.JSON, wire.dump({"id": "it", "status": "Content Moderated", "cost": 0}))
        return answer()

    site.intercept = intercept
    site.run()
    assert {row["kind"] for row in site.ledger.rows(Stage.FAILED)} == {"moderated"}
    assert site.ledger.budget.sums().spent == 0


def test_a_poll_that_refuses_the_key_stops_the_run(site: Site):
    """A poll that refuses the key stops the run and leaves the job to the next."""

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        return refusal(403) if "get_result" in request.url else answer()

    site.intercept = intercept
    with pytest.raises(AuthenticationError):
        site.run()
    assert site.count(Stage.SUBMITTED) == 5
    site.intercept = honest
    site.run()
    assert (site.count(Stage.SAVED), len(site.accepted)) == (5, 5)


def test_a_cap_refuses_before_the_submit_that_would_cross_it(site: Site):
    site.ledger.budget.set_cap(Decimal(10))
    assert site.run() == "the cap is reached"
    assert (len(site.submits), site.count(Stage.PLANNED)) == (3, 2)
    site.ledger.budget.set_cap(None)
    assert site.run() == ""
    assert site.count(Stage.SAVED) == 5


def test_a_cap_holds_over_two_processes(tmp_path: Path):
    site = Site(tmp_path, 40)
    site.ledger.budget.set_cap(Decimal(50))

    async def both() -> None:
        with Ledger.open(site.path) as other:
            await asyncio.gather(site.build().run(), site.build(ledger=other).run())

    asyncio.run(both())
    assert judge.charged(site.accepted) == 48


def test_two_processes_share_the_slots_and_the_work(tmp_path: Path):
    site = Site(tmp_path, 60)
    busiest = 0

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        nonlocal busiest
        response = answer()
        busiest = max(busiest, site.count(Stage.SUBMITTING, Stage.SUBMITTED))
        assert response.status != 429
        return response

    async def both() -> None:
        with Ledger.open(site.path) as other:
            options = RunOptions(lease=1.0, concurrency=20)
            await asyncio.gather(site.build(options).run(), site.build(options, ledger=other).run())

    site.intercept = intercept
    asyncio.run(both())
    assert busiest <= 24
    assert site.count(Stage.SAVED) == 60
    judge.judge(site.ledger, site.accepted)
    assert len({row["worker"] for row in _moves(site.ledger)} - {None}) == 2


def _moves(ledger: Ledger) -> list[Any]:
    with ledger.database.read() as transaction:
        return list(transaction.all("select * from moves"))


def test_a_full_storage_pauses_submitting_until_it_has_room(tmp_path: Path):
    """A full storage pauses submitting and everything goes on when it is gone."""
    site = Site(tmp_path, 60)
    whole, full = site.keep, True
    submits: dict[str, int] = {}

    def keep(*given: Any) -> Saved:
        if full:
            raise StorageError("the disk is full")
        return whole.save(*given)

    def make_room() -> None:
        nonlocal full
        full = False

    def watch(progress: RunProgress) -> None:
        submits.setdefault(progress.kind, len(site.submits))
        if progress.kind == "held":
            asyncio.get_running_loop().call_later(0.5, make_room)

    site.keep, site.on_progress = keep, watch
    assert site.run(RunOptions(lease=1.0, concurrency=4, first_pause=0.01)) == ""
    # What had been claimed when the trouble was noticed may still leave, and no more.
    assert submits["released"] - submits["held"] <= 4
    assert submits["held"] < 30
    assert site.count(Stage.SAVED) == 60
    assert len(site.submits) == 60


def test_no_more_is_submitted_than_a_slow_storage_can_take(tmp_path: Path):
    site = Site(tmp_path, 40)
    whole, quick = site.keep, threading.Event()
    submits: list[int] = []

    def keep(*given: Any) -> Saved:
        assert quick.wait(10)
        return whole.save(*given)

    def hurry() -> None:
        submits.append(len(site.submits))
        quick.set()

    def watch(progress: RunProgress) -> None:
        site.on_progress = lambda _: None
        asyncio.get_running_loop().call_later(1.0, hurry)

    site.keep, site.on_progress = keep, watch
    assert site.run(RunOptions(lease=1.0, concurrency=2, downloads=1)) == ""
    # Four wait for the one who saves, and two more were on their way.
    assert submits[0] <= 6
    assert site.count(Stage.SAVED) == 40


def test_a_storage_that_stays_full_ends_the_run_without_loss(site: Site):
    """A storage that stays full ends the run with its reason and nothing is lost."""

    def keep(*_: Any) -> Saved:
        raise StorageError("/images cannot be written: No space left on device.")

    whole, site.keep = site.keep, keep
    with pytest.raises(StorageError, match="No space left"):
        site.run(RunOptions(lease=1.0, first_pause=0.01, endurance=0.1))
    assert site.count(Stage.READY) == 5
    site.keep = whole
    assert site.run() == ""
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A real disk of so many bytes, where this process may mount one."""
    if not Path("/proc/mounts").exists() or os.geteuid() != 0:
        pytest.skip("mounting a disk needs root on Linux")
    disk = folder / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_really_full_pauses_the_work_until_there_is_room(tmp_path: Path):
    site = Site(tmp_path, 6)
    with mounted(tmp_path, "64k") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 60_000)
        site.keep = Saver(Folder(disk), provenance="none")
        site.on_progress = lambda progress: ballast.unlink(missing_ok=True) if progress.kind == "held" else None
        assert site.run() == ""
        assert "No space left" in next(progress.text for progress in site.progress if progress.kind == "held")
        judge.assert_files(site.ledger)
        assert (site.count(Stage.SAVED), len(site.submits)) == (6, 6)


def test_a_really_full_disk_loses_nothing_that_was_paid(tmp_path: Path):
    """A ledger on a disk that is really full forgets nothing that was paid for."""
    with mounted(tmp_path, "2m") as disk:
        site = Site(disk, 6)
        site.keep = Saver(Folder(tmp_path / "images"))
        ballast = disk / "ballast"

        def fill_and_make_room(progress: RunProgress) -> None:
            if progress.kind == "submitting" and not ballast.exists():
                with suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)
            if progress.kind == "held":
                ballast.unlink()
                site.on_progress = lambda _: None

        site.on_progress = fill_and_make_room
        with site.ledger:
            assert site.run() == ""
            assert "disk is full" in next(progress.text for progress in site.progress if progress.kind == "held")
            judge.judge(site.ledger, site.accepted)
            assert (site.count(Stage.SAVED), len(site.submits)) == (6, 6)


def test_a_full_ledger_keeps_paid_work_until_it_can_be_written(site: Site):
    """A ledger whose disk is full keeps what was paid for until it can be written."""

    class Full(Ledger):
        left = 4

        def submitted(self, job: Job, task: Any) -> Job | None:
            if self.left:
                self.left -= 1
                raise StorageError("database or disk is full")
            return super().submitted(job, task)

    with Full.open(site.path) as ledger:
        assert asyncio.run(site.build(ledger=ledger).run()) == RunEnd()
    assert site.count(Stage.SAVED) == 5
    assert len(site.submits) == 5
    assert "held" in site.kinds()


def test_a_ledger_that_stays_full_names_the_unwritten_task(tmp_path: Path):
    """A ledger that stays full names the task that it could not write down."""

    class Full(Ledger):
        def submitted(self, *_: Any) -> Job | None:
            raise StorageError("database or disk is full")

    site = Site(tmp_path, 1)
    with Full.open(site.path) as ledger, pytest.raises(StorageError, match="--collect") as told:
        asyncio.run(site.build(RunOptions(endurance=0.0, first_pause=0.01), ledger).run())
    assert site.accepted[0].task.id in str(told.value)
    assert site.count(Stage.DOUBTFUL) == 1


def test_stopping_once_submits_nothing_more_and_collects_what_is_in_flight(tmp_path: Path):
    site = Site(tmp_path, 40)

    def stop(progress: RunProgress) -> None:
        if progress.kind == "submitted" and site.worker:
            site.on_progress = lambda _: None
            site.worker.stop("enough")

    site.on_progress = stop
    assert site.run() == "enough"
    assert site.count(Stage.PLANNED) >= 16
    assert site.count(Stage.PLANNED, Stage.SAVED) == 40
    assert site.count(Stage.SAVED) == len(site.accepted)
    site.run()
    assert site.count(Stage.SAVED) == 40


def test_stopping_twice_ends_at_once_and_loses_nothing(tmp_path: Path):
    site = Site(tmp_path, 40)

    def stop(progress: RunProgress) -> None:
        if progress.kind == "submitted" and site.worker:
            site.worker.stop("now")

    site.on_progress = stop
    site.run()
    assert site.count(Stage.SUBMITTED) >= 1
    site.on_progress = lambda _: None
    judge.settle_by_the_accounts(site.ledger, site.accepted)
    site.run()
    assert site.count(Stage.SAVED) == 40
    judge.judge(site.ledger, site.accepted)
    assert site.ledger.budget.sums().committed == judge.charged(site.accepted)


def test_downloads_go_by_nearest_expiry(tmp_path: Path):
    site = Site(tmp_path, 6)
    site.run(RunOptions(lease=1.0))
    now = time.time()
    for number, job in enumerate(site.accepted):
        _put_back(site, job, Stage.READY, expires=now + 500 - 10 * number)
    site.requests.clear()
    site.run(RunOptions(lease=1.0, downloads=1))
    fetched = [request.url for request in site.requests if "/results/" in request.url]
    urls = [job.order.prompt for job in reversed(site.accepted)]
    assert [_prompt_at(site, url) for url in fetched] == urls


def _prompt_at(site: Site, url: str) -> str:
    return next(job.order.prompt for job in site.accepted if job.folder[2:16] in url)


def _put_back(site: Site, accepted: Any, stage: Stage, expires: float) -> None:
    """Pretend that a saved job was only ready when its process died."""
    poll = site.face.send(HttpRequest("GET", accepted.task.polling_url))
    url = wire.read_status(poll, accepted.task).url
    change = """update jobs set stage = :stage, url = :url, expires = :expires, path = null where task = :task"""
    with site.ledger.database.write() as transaction:
        transaction.run(change, stage=stage, url=url, expires=expires, task=accepted.task.id)
        transaction.run("update tally set jobs = jobs - 1, booked = booked - 3000000 where stage = 'saved'")
        transaction.run(
            "insert into tally values ('standard', :stage, 1, 3000000, 0) on conflict (pool, stage) do update "
            "set jobs = jobs + 1, booked = booked + 3000000",
            stage=stage,
        )


def test_an_expired_link_is_replaced_by_polling_its_task(site: Site):
    """A link that died while nobody worked is replaced by asking the task again."""
    site.run()
    for job in site.accepted:
        _put_back(site, job, Stage.READY, expires=1.0)
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)
    assert any(told["after"] == "submitted" and told["before"] == "ready" for told in site.ledger.transitions(1))


def test_a_lost_submit_is_settled_by_its_webhook(site: Site):
    """A lost submit is matched by its webhook and nothing stays in doubt."""
    lost = first_times(2, NoResponseError("cut off"))

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if request.method == "POST":
            hooks.append(request)
            response = answer()
            return lost(request, lambda: response)
        return answer()

    def call_back(progress: RunProgress) -> None:
        """Play the service's part: it calls the URL that the submit named, with the id of the task."""
        if progress.kind == "in doubt" and progress.job:
            prompt = progress.job.fields["prompt"]
            task = next(job.task.id for job in site.accepted if job.order.prompt == prompt)
            sent = next(request for request in hooks if prompt.encode() in request.body)
            token = read_token(wire.json.loads(sent.body)["webhook_url"])
            with Ledger.open(site.path) as other:
                assert other.accept_callback(token or "", task)

    hooks: list[HttpRequest] = []
    site.intercept, site.on_progress = intercept, call_back
    assert site.run(RunOptions(lease=1.0, webhook="https://example.com/hook?a=b", first_pause=0.01)) == ""
    assert (site.count(Stage.SAVED), site.count(Stage.DOUBTFUL)) == (5, 0)
    assert site.ledger.budget.sums().spent == judge.charged(site.accepted)


def losing(count: int) -> Callable[[HttpRequest, Callable[[], Response]], Response]:
    """Lose the answers to the first submits, which the service has taken."""
    left = [None] * count

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        response = answer()
        if request.method == "POST" and left:
            left.pop()
            raise NoResponseError("cut off")
        return response

    return intercept


def test_a_lost_submit_is_sent_again_with_its_key_and_nothing_is_in_doubt(tmp_path: Path):
    site = Site(tmp_path, 5, keeps_keys=True)
    site.intercept = losing(5)

    assert site.run() == ""

    assert (site.count(Stage.SAVED), len(site.submits), len(site.accepted)) == (5, 10, 5)
    judge.judge(site.ledger, site.accepted)


def test_the_next_run_sends_a_submit_in_doubt_again_with_its_key(tmp_path: Path):
    """As after a kill: the ledger holds the key, and the server the task."""
    site = Site(tmp_path, 3, keeps_keys=True)
    site.intercept = losing(10_000)
    with pytest.raises(InDoubtError):
        site.run(RunOptions(lease=1.0, max_doubts=1, first_pause=0.01, submit_timeout=0.2))
    assert site.count(Stage.DOUBTFUL) > 0
    site.intercept = honest

    assert site.run() == ""

    assert (site.count(Stage.SAVED), len(site.accepted)) == (3, 3)
    judge.judge(site.ledger, site.accepted)


def test_a_doubt_older_than_the_promise_is_not_sent_again(site: Site):
    """A server that has forgotten the key would sell the image again."""
    site.face.state.keeps_keys = True
    site.intercept = losing(10_000)
    with pytest.raises(InDoubtError):
        site.run(RunOptions(lease=1.0, max_doubts=1, first_pause=0.01, submit_timeout=0.2))
    doubts = site.count(Stage.DOUBTFUL)
    with site.ledger.database.write() as transaction:
        transaction.run("update jobs set began = began - 3500 where stage = 'in doubt'")
    site.intercept = honest

    site.run()

    assert site.count(Stage.DOUBTFUL) == doubts > 0


def test_a_doubt_whose_image_file_has_gone_stays_in_doubt(tmp_path: Path):
    picture = tmp_path / "in.png"
    picture.write_bytes(blank(64, 64))
    site = Site(tmp_path, 1, keeps_keys=True, images=[str(picture)])
    site.intercept = losing(10_000)
    site.run(RunOptions(lease=1.0, first_pause=0.01, submit_timeout=0.2))
    assert site.count(Stage.DOUBTFUL) == 1
    picture.unlink()
    site.intercept = honest

    site.run()

    assert site.count(Stage.DOUBTFUL) == 1


def test_a_webhook_address_keeps_its_query_and_says_whose_it_is():
    url = address("https://example.com/hook?a=b", "t-o_k")
    assert url == "https://example.com/hook?a=b&fluxwerk=t-o_k"
    assert read_token(url) == read_token("/hook?a=b&fluxwerk=t-o_k") == "t-o_k"
    assert read_token("/hook") is None


def test_a_worker_that_was_declared_dead_goes_on_under_a_new_name(tmp_path: Path):
    site = Site(tmp_path, 30)

    def bury(progress: RunProgress) -> None:
        if progress.kind == "submitted":
            site.on_progress = lambda _: None
            with Ledger.open(site.path) as other, other.database.write() as transaction:
                transaction.run("update workers set expires = 0")
                dead = other.leases.expire_dead()
                assert len(dead) == 1

    site.on_progress = bury
    site.run()
    judge.settle_by_the_accounts(site.ledger, site.accepted)
    site.run()
    assert site.count(Stage.SAVED) == 30
    judge.judge(site.ledger, site.accepted)


def test_a_local_image_is_read_once_for_all_jobs_that_use_it(tmp_path: Path):
    site = Site(tmp_path)
    (tmp_path / "cat.png").write_bytes(blank(80, 80))
    rows = [{"prompt": f"edit {n}", "images": str(tmp_path / "cat.png")} for n in range(4)]
    found = plan(site.ledger, rows)
    assert found.total == 4 * Decimal("4.5")
    site.run()
    assert site.count(Stage.SAVED) == 4
    assert judge.charged(site.accepted) == found.total
    assert b"sha256:" not in b"".join(request.body for request in site.submits)


def test_an_image_changed_since_the_plan_fails_its_job(tmp_path: Path):
    """An image that changed since it was planned fails its job and costs nothing."""
    site = Site(tmp_path)
    (tmp_path / "cat.png").write_bytes(blank(80, 80))
    (tmp_path / "dog.png").write_bytes(blank(90, 90))
    plan(site.ledger, [{"prompt": "edit", "images": [str(tmp_path / f"{name}.png")]} for name in ("cat", "dog")])
    (tmp_path / "cat.png").write_bytes(blank(81, 81))
    site.run()
    assert (site.count(Stage.FAILED), site.count(Stage.SAVED)) == (1, 1)
    assert "has changed since it was planned" in site.ledger.row(1)["reason"]
    (tmp_path / "cat.png").unlink()
    site.ledger.retry(1)
    site.run()
    assert "cannot be read" in site.ledger.row(1)["reason"]


def test_inputs_that_do_not_fit_at_hand_are_read_again(tmp_path: Path):
    site = Site(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(blank(80 + number, 80))
    plan(site.ledger, [{"prompt": "edit", "images": str(tmp_path / f"{number}.png")} for number in range(3)])
    small = Inputs(site.ledger.database, kept=10)
    texts = [small.fill_in(site.ledger.job(number)).fields["input_image"] for number in (1, 2, 1, 3)]
    assert texts[0] == texts[2] != texts[1]
    assert len(small._texts) == 1


def test_what_an_offline_server_forgot_is_made_again(site: Site):
    site.on_progress = lambda progress: site.worker.stop() if progress.kind == "submitted" and site.worker else None
    site.run()
    assert site.count(Stage.SUBMITTED, Stage.DOUBTFUL) == 5
    site.on_progress = lambda _: None
    site.face.access = Credentials("http://another.test", KEY)
    site.run(RunOptions(lease=1.0, offline=True), base="http://another.test")
    assert site.count(Stage.SAVED) == 5
    assert site.ledger.budget.sums().committed == 15


def test_results_come_as_they_finish_and_leaving_early_loses_nothing(tmp_path: Path):
    site = Site(tmp_path, 40)

    class Bridge(AsyncClient):
        async def send(self, request: HttpRequest, budget: float | None = None) -> Response:
            return await site.send(request, budget)

    async def first() -> str:
        batch = Batch(site.path, client=Bridge(KEY, base_url=BASE), saver=site.keep, options=QUICK)
        results = batch.results()
        try:
            async for result in results:
                return result.kind
        finally:
            await results.aclose()
            batch.close()
        return ""

    async def rest() -> set[int]:
        with Batch(site.path, client=Bridge(KEY, base_url=BASE), saver=site.keep, options=QUICK) as batch:
            return {result.job.id async for result in batch.results()}

    assert asyncio.run(first()) == "saved"
    judge.settle_by_the_accounts(site.ledger, site.accepted)
    others = asyncio.run(rest())
    assert site.count(Stage.SAVED) == 40
    assert len(others) >= 1
    judge.judge(site.ledger, site.accepted)


def a_dead_delivery(request: HttpRequest, answer: Callable[[], Response]) -> Response:
    return refusal(403) if "/results/" in request.url else answer()


def test_an_image_with_dead_links_is_collected_later(site: Site):
    """An image whose links are all dead has failed and is collected later without a new charge."""
    site.intercept = a_dead_delivery
    site.run()
    assert {row["kind"] for row in site.ledger.rows(Stage.FAILED)} == {"link_expired"}
    assert site.ledger.budget.sums().spent == 15
    site.intercept = honest
    for number in range(1, 6):
        site.ledger.retry(number)
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits), site.ledger.budget.sums().spent) == (5, 5, 15)


def test_a_job_moved_on_during_its_download_is_left_alone(site: Site):
    """A job that was moved on while its image was fetched or saved is left alone."""

    def take_over(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if "/results/" in request.url:
            with Ledger.open(site.path) as other, other.database.write() as transaction:
                transaction.run("update jobs set fence = fence + 1 where stage = 'ready'")
        return answer()

    site.intercept = take_over
    site.on_progress = lambda progress: site.worker.stop("over") if progress.kind == "ready" and site.worker else None
    site.run()
    assert site.count(Stage.READY) >= 1
    site.intercept, site.on_progress = honest, lambda _: None
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


def test_a_service_that_goes_away_loses_no_task(site: Site):
    """A service that went away loses no task and the next run collects it."""

    def refused(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        return refusal(403) if "get_result" in request.url else answer()

    def away(_: HttpRequest, __: Callable[[], Response]) -> Response:
        raise ConnectionFailedError("the network is gone")

    site.intercept = refused
    with pytest.raises(AuthenticationError):
        site.run()
    site.intercept = away
    with pytest.raises(ConnectionFailedError, match="answered no poll"):
        site.run(RunOptions(lease=1.0, patience=0.0, last_look=0.3))
    assert site.count(Stage.SUBMITTED) == 5
    site.intercept = honest
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


def test_a_failing_listener_ends_the_run_without_a_doubt(tmp_path: Path):
    """A listener that fails ends the run in good order and puts nothing in doubt."""
    site = Site(tmp_path, 40)

    def gone(_: RunProgress) -> None:
        raise BrokenPipeError

    site.on_progress = gone
    with pytest.raises(BrokenPipeError):
        site.run(RunOptions(lease=1.0, concurrency=4))
    assert site.count(Stage.DOUBTFUL) == 0
    assert site.count(Stage.SAVED) == len(site.submits) == 4


def test_the_next_run_saves_the_image_that_a_failed_saver_left(tmp_path: Path):
    """A saver that fails ends the run in good order, and the next run saves the image."""
    site = Site(tmp_path, 40)
    whole = site.keep

    def keep(*given: Any) -> Saved:
        raise ValueError("a bug of somebody's")

    site.keep = keep
    with pytest.raises(ValueError, match="a bug"):
        site.run(RunOptions(lease=1.0, concurrency=4))
    assert site.count(Stage.DOUBTFUL) == 0
    assert site.count(Stage.READY) == len(site.submits) >= 1
    site.keep = whole
    assert site.run() == ""
    assert (site.count(Stage.SAVED), len(site.submits)) == (40, 40)


def test_an_unknown_transport_failure_leaves_one_doubt(tmp_path: Path):
    """A line that fails in an unknown way leaves one doubt and ends in good order."""
    site = Site(tmp_path, 40)
    site.intercept = first_times(1, ValueError("a bug of somebody's"))
    with pytest.raises(ValueError, match="a bug"):
        site.run(RunOptions(lease=1.0, concurrency=4))
    assert site.count(Stage.DOUBTFUL) == 1
    assert site.count(Stage.SAVED) == len(site.accepted)


def test_a_name_below_a_file_fails_its_job_unpaid_and_a_retry_makes_it(tmp_path: Path):
    site = Site(tmp_path)
    names = ["a.png/b.png", "a.png/b/c.png", "good.png"]
    plan(site.ledger, [{"prompt": name, "width": 64, "height": 64, "output": name} for name in names])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"another file")
    site.run()
    stages = {row["output"]: row["stage"] for row in site.ledger.rows()}
    assert stages == {"a.png/b.png": "failed", "a.png/b/c.png": "failed", "good.png": "saved"}
    assert {row["kind"] for row in site.ledger.rows(Stage.FAILED)} == {"invalid"}
    assert len(site.submits) == 1
    (tmp_path / "images" / "a.png").unlink()
    site.ledger.retry(1)
    site.ledger.retry(2)
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (3, 3)


def test_a_name_that_is_taken_after_the_submit_is_collected_by_a_retry(tmp_path: Path):
    site = Site(tmp_path)
    plan(site.ledger, [{"prompt": "a fox", "width": 64, "height": 64, "output": "a.png/b.png"}])
    blocking = tmp_path / "images" / "a.png"

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if request.method == "POST":
            blocking.parent.mkdir(exist_ok=True)
            blocking.write_bytes(b"another file")
        return answer()

    site.intercept = intercept
    site.run()
    assert (site.ledger.row(1)["kind"], site.ledger.row(1)["stage"]) == ("invalid", "failed")
    blocking.unlink()
    site.ledger.retry(1)
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (1, 1)


def test_a_task_that_never_ends_is_given_up_and_collectable(site: Site):
    """A task that never ends is given up after the patience and collected on request."""

    def intercept(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if "get_result" in request.url:
            return Response(200, wire.JSON, wire.dump({"id": "it", "status": "Pending"}))
        return answer()

    site.intercept = intercept
    site.run(RunOptions(lease=1.0, patience=0.0, last_look=0.3))
    assert {row["kind"] for row in site.ledger.rows(Stage.FAILED)} == {"timed_out"}
    site.intercept = honest
    for number in range(1, 6):
        site.ledger.retry(number)
    site.run()
    assert (site.count(Stage.SAVED), len(site.submits)) == (5, 5)


def test_a_batch_learns_durations_for_each_size(tmp_path):
    """A batch learns how long its tasks take for each size as a client does."""
    history = PollingHistory()
    rows = [{"prompt": "a fox", "width": side, "height": side, "seed": side} for side in (64, 1024)]
    with loopback() as base:
        client = AsyncClient(KEY, base_url=base, history=history)
        batch = Batch(tmp_path / "a.ledger", output=tmp_path / "images", client=client)
        batch.plan(rows)
        batch.run()
        asyncio.run(client.close())

    assert repr(history).startswith("PollingHistory(2 kinds")


def test_a_run_that_is_cut_while_its_ledger_is_full_names_the_task(tmp_path: Path):
    class Full(Ledger):
        def submitted(self, *_: Any) -> Job | None:
            raise StorageError("database or disk is full")

    site = Site(tmp_path, 1)
    with Full.open(site.path) as ledger:
        asyncio.run(site.build(RunOptions(timeout=0.5, first_pause=0.01), ledger).run())
    assert any(f"--collect {site.accepted[0].task.id}" in progress.text for progress in site.progress)


def test_a_refused_poll_for_a_fresh_link_leaves_its_job_ready(site: Site):
    site.run()
    for job in site.accepted:
        _put_back(site, job, Stage.READY, expires=1e12)

    def refuse(request: HttpRequest, answer: Callable[[], Response]) -> Response:
        if "/results/" in request.url:
            return Response(403)
        return Response(429, {"retry-after": "3600"}) if "get_result" in request.url else answer()

    site.intercept = refuse
    with pytest.raises(RateLimitError):
        site.run()
    assert (site.count(Stage.FAILED), site.count(Stage.READY)) == (0, 5)
