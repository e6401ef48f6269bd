"""History: what is learned from the tasks of a process, kept for the next one, and held to one budget."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import AsyncClient, Client, InvalidUsageError
from fluxwerk.polling.histogram import bin_of
from fluxwerk.polling.history import (
    BEHIND_A_WEBHOOK,
    REMEMBERED_KINDS,
    SAVE_EVERY,
    PollingHistory,
    kind_of,
    named_file,
    shared,
    user_file,
)
from fluxwerk.polling.limiter import POLLS_PER_SECOND, RECOVERY
from fluxwerk.polling.reliability import MISSES, WebhookReliability
from fluxwerk.protocol import retry
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.testing import FaceToFace, PretendClock, loopback
from fluxwerk.types import Outcome, Status, Task

TASK = Task("1", "https://api.bfl.ai/v1/get_result?id=1", "flux-2-pro", Decimal(3), None, Decimal("1.05"))


def status(outcome=Outcome.RUNNING, **more):
    return Status(TASK, "any", outcome, **more)


READY = status(Outcome.READY)


@pytest.fixture
def clock():
    return PretendClock(1000.0)


def play(history, clock, seconds, *, task=TASK, age=0.0, told=None, said=None, **how):
    """Live through one task and return its polls and its delay in seconds; `told` makes statuses of a task's age."""
    plan, began, polls = history.plan(task, clock.now, age, **how), clock.now(), 0
    clock.sleep(plan(None))
    while True:
        polls += 1
        elapsed = clock.now() - began
        if elapsed >= seconds:
            plan(status(Outcome.READY, seconds=said() if said else seconds if told is None else None))
            return polls, elapsed - seconds
        clock.sleep(plan(told(elapsed) if told else status()))


def test_the_fourth_task_is_polled_by_what_was_learned(clock):
    """The first task is polled as if nothing were known and the fourth is not."""
    history = PollingHistory()
    first = play(history, clock, 5.0)
    for _ in range(3):
        play(history, clock, 5.0)
    polls, delay = play(history, clock, 5.0)

    assert first[0] > 5
    assert polls <= 2
    assert 0 <= delay < 0.3


def test_who_does_not_learn_polls_the_hundredth_task_like_the_first(clock):
    history = PollingHistory(learning=False)

    assert len({play(history, clock, 5.0) for _ in range(20)}) == 1


def test_a_task_that_others_wait_behind_is_polled_more_densely(clock):
    history = PollingHistory()
    for number in range(200):
        play(history, clock, 1.0 + number % 20 / 10)
    calm = [play(history, clock, 1.0 + number / 10) for number in range(20)]
    crowded = [play(history, clock, 1.0 + number / 10, crowded=lambda: True) for number in range(20)]

    assert sum(polls for polls, _ in crowded) > sum(polls for polls, _ in calm)
    assert sum(delay for _, delay in crowded) < sum(delay for _, delay in calm)


@pytest.mark.parametrize("said", [0.5, 1.0, 50.0, None])
def test_a_duration_that_does_not_fit_between_the_polls_is_not_believed(clock, said):
    history = PollingHistory()
    for _ in range(30):
        polls, delay = play(history, clock, 5.0, said=lambda: said)

    assert polls <= 6
    assert delay < 0.25


def bins(history):
    """The bins that hold anything of what was learned of the task's kind."""
    history.save()
    return {int(number) for number in json.loads(history.path.read_text())["kinds"][kind_of(TASK)]["bins"]}


def test_a_last_look_at_the_deadline_tells_not_exactly_when_a_task_ended(tmp_path, clock):
    history = PollingHistory(tmp_path / "history.json")
    for _ in range(10):
        play(history, clock, 5.0)
    plan = history.plan(TASK, clock.now, 0.0)
    assert plan(None) > 3.5
    clock.sleep(3.0)
    plan(READY)

    assert bins(history) >= set(range(bin_of(0.5), bin_of(3.0)))


def test_a_long_repeated_poll_gives_a_wide_interval(tmp_path, clock):
    """A poll that was repeated for long tells not that the task ended before the first try."""
    history = PollingHistory(tmp_path / "history.json")
    plan = history.plan(TASK, clock.now, 0.0)
    clock.sleep(plan(None) + 20.0)
    plan(READY)

    assert max(bins(history)) == bin_of(20.1)


@pytest.mark.parametrize("url", ["https://[x", "https://user:secret@api.bfl.ai/v1/get_result", "", "/x"])
def test_a_polling_url_that_is_none_is_left_to_whoever_refuses_it(clock, url):
    plan = PollingHistory().plan(Task("1", url, "flux-2-pro"), clock.now, 0.0)

    assert plan(None) == pytest.approx(0.1)
    assert "secret" not in kind_of(Task("1", url, "flux-2-pro"))


def test_a_size_beyond_all_measure_is_of_the_largest_class():
    assert kind_of(Task("1", TASK.polling_url, "m", output_mp=Decimal("1e308"))) == "api.bfl.ai m 4096 ?"


def test_kinds_are_hosts_models_and_sizes_and_do_not_teach_each_other(clock):
    history = PollingHistory()
    large = Task("2", TASK.polling_url, TASK.model, output_mp=Decimal(4))
    elsewhere = Task("3", "http://127.0.0.1:8000/v1/get_result?id=3", TASK.model, output_mp=Decimal("1.05"))
    for _ in range(5):
        play(history, clock, 5.0)

    assert kind_of(TASK) == "api.bfl.ai flux-2-pro 2 ?"
    assert play(history, clock, 5.0, task=large)[0] > 5
    assert play(history, clock, 5.0, task=elsewhere)[0] > 5


def test_a_task_of_unknown_age_teaches_nothing(clock):
    """A task of unknown age teaches nothing and is polled as if nothing were known."""
    history = PollingHistory()
    for _ in range(10):
        play(history, clock, 0.05, age=None)
        play(history, clock, 0.05, age=100.0)

    assert repr(history).startswith("PollingHistory(0 kinds")


def test_a_resumed_task_is_polled_at_once_when_it_must_be_ready(clock):
    """A task that is taken up again is polled at once when it must be ready."""
    history = PollingHistory()
    for _ in range(10):
        play(history, clock, 5.0)

    assert history.plan(TASK, clock.now, 60.0)(None) <= retry.LONGEST_POLL
    assert history.plan(TASK, clock.now, 4.9)(None) < 0.3


def test_progress_that_polls_tell_is_used(clock):
    history = PollingHistory()
    found = [
        play(history, clock, seconds, told=lambda age, whole=seconds: status(progress=age / whole // 0.02 * 0.02))
        for seconds in [3.0, 7.0, 2.0, 9.0, 4.0, 6.0, 5.0, 8.0] * 3
    ]
    unlearned = [play(PollingHistory(learning=False), clock, seconds) for seconds in [3.0, 7.0, 2.0, 9.0, 4.0] * 3]

    assert max(delay for _, delay in found[8:]) < 0.5
    assert sum(delay for _, delay in found[8:]) / 16 < 0.2 * sum(delay for _, delay in unlearned) / 15


@pytest.mark.parametrize("share", [0.0, 1.0, -3.0, 7.0, float("nan")])
def test_progress_that_means_nothing_changes_nothing(clock, share):
    told = play(PollingHistory(), clock, 2.0, told=lambda _: status(progress=share))

    assert told == pytest.approx(play(PollingHistory(), PretendClock(1000.0), 2.0, told=lambda _: status()))


def test_behind_a_webhook_the_first_poll_comes_late(clock):
    """Behind a webhook the first poll comes later than nearly all tasks take."""
    history = PollingHistory()

    assert history.plan(TASK, clock.now, 0.0, webhook=WebhookReliability())(None) == BEHIND_A_WEBHOOK[0]
    for _ in range(20):
        play(history, clock, 10.0)
    plan = history.plan(TASK, clock.now, 0.0, webhook=WebhookReliability())
    pauses = [plan(None), *(plan(status()) for _ in range(20))]
    assert 14 < pauses[0] < 18
    assert pauses[-1] == BEHIND_A_WEBHOOK[1]


def test_a_poll_after_a_webhook_dates_the_end_exactly(clock):
    """A poll that a webhook brought forward tells exactly when the task ended."""
    history = PollingHistory()
    for _ in range(5):
        plan = history.plan(TASK, clock.now, 0.0, webhook=WebhookReliability())
        assert plan(None) > 2.0
        clock.sleep(2.0)
        plan(READY)

    assert history.usual(kind_of(TASK)) == pytest.approx(2.0, rel=0.06)


def announced(history, clock, seconds, webhook):
    """Live through one task whose webhook arrives as it ends."""
    plan, began = history.plan(TASK, clock.now, 0.0, webhook=webhook), clock.now()
    pause = plan(None)
    while clock.now() + pause < began + seconds:
        clock.sleep(pause)
        pause = plan(status())
    clock.sleep(began + seconds - clock.now())
    plan(READY)


def test_webhooks_that_never_come_are_no_longer_waited_for(clock):
    history, webhook = PollingHistory(), WebhookReliability()
    delays = [play(history, clock, 1.0, webhook=webhook)[1] for _ in range(MISSES + 5)]

    assert delays[:MISSES] == [BEHIND_A_WEBHOOK[0] - 1.0] * MISSES
    assert max(delays[MISSES:]) < 0.35


def test_a_task_under_way_is_polled_densely_once_webhooks_are_not_trusted(clock):
    history, webhook = PollingHistory(), WebhookReliability()
    plan = history.plan(TASK, clock.now, 0.0, webhook=webhook)
    assert plan(None) == BEHIND_A_WEBHOOK[0]
    for _ in range(MISSES):
        webhook.note_ending(announced=False)
    clock.sleep(BEHIND_A_WEBHOOK[0])

    assert plan(status()) < 1.0


def test_webhooks_that_come_again_are_waited_for_again(clock):
    history, webhook = PollingHistory(), WebhookReliability()
    for _ in range(MISSES + 2):
        play(history, clock, 1.0, webhook=webhook)
    assert not webhook.is_trusted
    announced(history, clock, 1.0, webhook)

    assert webhook.is_trusted
    assert history.plan(TASK, clock.now, 0.0, webhook=webhook)(None) == BEHIND_A_WEBHOOK[0]


def test_a_webhook_that_is_lost_now_and_then_keeps_its_trust(clock):
    history, webhook = PollingHistory(), WebhookReliability()
    for _ in range(4):
        for _ in range(MISSES - 1):
            play(history, clock, 1.0, webhook=webhook)
        announced(history, clock, 1.0, webhook)

    assert webhook.is_trusted


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.MODERATED])
def test_a_bad_ending_without_its_webhook_counts_as_well(clock, outcome):
    history, webhook = PollingHistory(learning=False), WebhookReliability()
    for _ in range(MISSES):
        plan = history.plan(TASK, clock.now, 0.0, webhook=webhook)
        clock.sleep(plan(None))
        plan(status(outcome))

    assert not webhook.is_trusted


@pytest.mark.parametrize("age", [None, 60.0])
def test_a_task_that_was_taken_up_later_says_nothing_of_webhooks(clock, age):
    history, webhook = PollingHistory(), WebhookReliability()
    for _ in range(MISSES):
        play(history, clock, 1.0, age=age, webhook=webhook)

    assert webhook.is_trusted


def test_what_was_learned_is_there_in_the_next_process(tmp_path, clock):
    first = PollingHistory(tmp_path / "new" / "history.json")
    for _ in range(5):
        play(first, clock, 5.0)
    first.save()

    assert play(PollingHistory(first.path), clock, 5.0)[0] < play(PollingHistory(), clock, 5.0)[0] / 2
    assert [path.name for path in first.path.parent.iterdir()] == ["history.json"]


def test_the_file_holds_hosts_models_and_durations_and_nothing_of_a_task(tmp_path, clock):
    history = PollingHistory(tmp_path / "history.json")
    play(history, clock, 5.0, task=Task("secret-id", "https://api.bfl.ai/v1/get_result?id=secret-id", "flux-2-pro"))
    history.save()
    body = json.loads(history.path.read_text())

    assert list(body["kinds"]) == ["api.bfl.ai flux-2-pro ? ?"]
    assert "secret" not in history.path.read_text()


def test_it_is_saved_now_and_then_without_being_asked(tmp_path, clock):
    history = PollingHistory(tmp_path / "history.json")
    for _ in range(SAVE_EVERY - 1):
        play(history, clock, 0.5)
    assert not history.path.exists()
    play(history, clock, 0.5)

    assert history.path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1}', '{"format": 1, "kinds": {"a": {"bins": 3}}}',
             '{"format": 1, "kinds": {"a": {"bins": {"1": 1}, "used": "x"}}}', '{"format": 9, "kinds": {"a": 1}}',
             '{"format": 1, "kinds": {"a": {"bins": {"1": 1}, "used": NaN}}}',
             '{"format": 1, "kinds": {"a": {"bins": {"1": NaN}, "used": 1}}}',
             '{"format": 1, "kinds": {"a": {"bins": {"1": 1}, "used": -Infinity}}}',
             '{"format": 1, "kinds": {"a": {"bins": {"1": 1}, "used": 1%s}}}' % ("0" * 400)],
)  # fmt: skip
def test_a_file_that_is_no_good_is_as_good_as_none(tmp_path, clock, text):
    (tmp_path / "history.json").write_text(text)
    history = PollingHistory(tmp_path / "history.json")
    play(history, clock, 1.0)
    history.save()

    assert json.loads(history.path.read_text())["format"] == 1


def test_a_full_history_from_the_future_makes_room(tmp_path, clock):
    """A file that names the future and too many kinds makes room for what is new."""
    kinds = {
        f"{number}": {"bins": {"1": 1}, "used": 1e300 if number else float("inf")}
        for number in range(REMEMBERED_KINDS + 50)
    }
    (tmp_path / "history.json").write_text(json.dumps({"format": 1, "kinds": kinds}))
    history = PollingHistory(tmp_path / "history.json")
    play(history, clock, 1.0)
    history.save()
    kept = json.loads(history.path.read_text())["kinds"]

    assert len(kept) == REMEMBERED_KINDS
    assert kind_of(TASK) in kept


def test_many_that_save_the_same_file_at_once_never_leave_half_of_it(tmp_path, clock):
    several = [PollingHistory(tmp_path / "history.json") for _ in range(4)]
    for history in several:
        for number in range(40):
            history.learn(f"{number}", 0.1, 10.0, None)
    several[0].save()
    torn = []

    def work(history):
        for _ in range(10):
            history.learn("0", 0.1, 10.0, None)
            history.save()

    def look():
        while any(thread.is_alive() for thread in threads):
            try:
                # Windows lets nobody read a file while it is replaced.
                with suppress(PermissionError):
                    json.loads((tmp_path / "history.json").read_text())
            except ValueError as half:
                torn.append(half)

    threads = [threading.Thread(target=work, args=[history]) for history in several]
    for thread in threads:
        thread.start()
    look()

    assert torn == []
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


def test_a_disk_that_takes_nothing_costs_nothing_but_the_memory(tmp_path, clock):
    (tmp_path / "file").write_text("not a folder")
    history = PollingHistory(tmp_path / "file" / "history.json")
    play(history, clock, 1.0)
    history.save()

    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_half_written_file_is_not_left_behind(tmp_path, clock):
    history = PollingHistory(tmp_path / "history.json")
    history.path.mkdir()
    (history.path / "in the way").touch()
    play(history, clock, 1.0)
    history.save()

    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]
    assert stat.S_ISDIR(history.path.stat().st_mode)


def test_kinds_not_seen_for_longest_are_forgotten_first(clock):
    history = PollingHistory()
    for number in range(REMEMBERED_KINDS + 5):
        play(history, clock, 0.5, task=Task("1", f"https://{number}.bfl.ai/", "flux-2-pro"))

    assert repr(history).startswith(f"PollingHistory({REMEMBERED_KINDS} kinds")


def test_kinds_that_never_end_are_no_more_than_those_that_do(clock):
    history = PollingHistory()
    for number in range(REMEMBERED_KINDS + 5):
        plan = history.plan(Task("1", f"https://{number}.bfl.ai/", "flux-2-pro"), clock.now, 0.0)
        clock.sleep(plan(None))
        plan(status(progress=0.5))

    assert repr(history).startswith(f"PollingHistory({REMEMBERED_KINDS} kinds")


@pytest.mark.parametrize("budget", [0, -1, float("inf"), float("nan")])
def test_an_invalid_poll_budget_is_refused_before_a_submit(budget):
    """A budget that is no number of polls is refused before anything is paid."""
    with pytest.raises(InvalidUsageError, match="budget"):
        PollingHistory(budget=budget)


@pytest.mark.parametrize("outcome", [Outcome.READY, Outcome.FAILED, Outcome.MODERATED])
def test_an_ended_task_takes_no_share_of_the_budget(clock, outcome):
    """A task that has ended takes no share of the budget however long its error is kept."""
    history = PollingHistory()
    ended = [history.plan(TASK, clock.now, 0.0) for _ in range(500)]
    hooked = [history.plan(TASK, clock.now, 0.0, webhook=WebhookReliability()) for _ in range(500)]
    for plan in ended:
        plan(None)
        plan(status(outcome))

    assert len(hooked) == 500
    assert repr(history).endswith(", 0 watched)")


def test_no_second_holds_more_polls_than_the_budget():
    history = PollingHistory()
    moments = sorted(history.book(0.0, number / 1000) for number in range(1000))
    busiest = max(sum(moment <= other < moment + 1 for other in moments) for moment in moments)

    assert busiest <= POLLS_PER_SECOND * 1.1
    assert moments[-1] == pytest.approx(1000 / POLLS_PER_SECOND, rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60), st.sampled_from([0.5, 2.0, 20.0]))
def test_a_booked_poll_is_never_early_or_while_refused(steps, budget):
    """A place is never before it was wanted and never while the service refuses."""
    history, now, shut = PollingHistory(budget=budget), 100.0, 0.0
    for pause, refused in steps:
        now += pause / 10
        if refused:
            history.refused(now, pause)
            shut = max(shut, now + pause)
        moment = history.book(now, now + pause)
        assert moment >= max(now + pause, shut) - 1e-9


def test_a_refusal_halves_the_polls_and_time_gives_them_back():
    history = PollingHistory(budget=100)

    def second(now):
        moments = [history.book(now, now + 50) for _ in range(40)]
        return sum(moment < now + 50.5 for moment in moments)

    assert second(0.0) == 40
    history.refused(100.0, 1.0)
    history.refused(100.1, 1.0)
    assert second(102.0) == 25
    assert second(102.0 + RECOVERY) == 40


def test_many_tasks_share_the_budget_by_polling_each_more_rarely(clock):
    history = PollingHistory(budget=20)
    for number in range(100):
        play(history, clock, 1.0 + number % 10 / 10)
    alone = history.schedule(kind_of(TASK), crowded=True)
    plans = [history.plan(TASK, clock.now, 0.0) for _ in range(50)]
    shared = history.schedule(kind_of(TASK), crowded=True)

    assert len(plans) == 50
    assert shared.polls < alone.polls / 1.5


def test_threads_may_share_it(clock):
    history = PollingHistory()

    def work():
        mine = PretendClock(1000.0)
        for number in range(100):
            play(history, mine, 0.5, task=Task("1", f"https://{number % 7}.bfl.ai/", "flux-2-pro"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert repr(history).startswith("PollingHistory(7 kinds")


@pytest.mark.parametrize(("named", "found"), [("off", None), ("/somewhere", Path("/somewhere/history.json"))])
def test_the_cache_folder_can_be_named_and_switched_off(monkeypatch, named, found):
    monkeypatch.setenv("FLUXWERK_CACHE", named)

    assert named_file() == user_file() == found


def test_the_command_lines_history_is_in_the_users_cache_by_default(monkeypatch):
    monkeypatch.delenv("FLUXWERK_CACHE")

    assert user_file().parts[-2:] == ("fluxwerk", "history.json")
    assert named_file() is None


# Loading what the client stands on registers exit hooks of its own, so it is loaded first.
PROGRAM = """
import atexit, concurrent.futures.thread, logging, os, sys, httpcore2
base, cache = sys.argv[1:]
os.environ.pop("FLUXWERK_CACHE", None)
if cache:
    os.environ["FLUXWERK_CACHE"] = cache
hooks = atexit._ncallbacks()
from fluxwerk import Client
with Client("a-key", base_url=base, slots=4) as client:
    assert all(made.image for made in client.generate_many(["a fox"] * 4, width=64, height=64))
    assert repr(client.history).startswith("PollingHistory(1 kinds")
assert atexit._ncallbacks() == hooks
assert not [name for name in logging.root.manager.loggerDict if logging.getLogger(name).filters]
"""


@pytest.mark.parametrize(("named", "files"), [("", []), ("cache", ["cache", "cache/history.json"])])
def test_a_client_leaves_nothing_behind_unless_a_place_is_named(fluxwerk_server, tmp_path, named, files):
    cache = str(tmp_path / named) if named else ""
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE")}
    program = [sys.executable, "-c", PROGRAM, fluxwerk_server, cache]
    subprocess.run(program, check=True, env=os.environ | homes, timeout=60)

    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == files


@pytest.mark.skipif(sys.platform == "win32", reason="there a home is always found")
def test_a_user_without_a_home_learns_for_as_long_as_the_process_lives(monkeypatch):
    for name in ("FLUXWERK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # Nobody says where this user lives: neither the environment nor the list of users.
    monkeypatch.setenv("HOME", "nowhere")
    monkeypatch.setitem(sys.modules, "pwd", None)

    assert user_file() is None


def test_clients_that_were_given_none_share_one_history(fluxwerk_server):
    with Client("a-key", base_url=fluxwerk_server) as client:
        assert client.history is shared()
    assert AsyncClient("a-key").history is shared()


def test_a_client_learns_and_leaves_what_it_learned_to_the_next(tmp_path):
    file, polls = tmp_path / "history.json", []
    for _ in range(2):
        events = []
        with (
            loopback(pace=lambda _: 0.7) as base,
            Client("a-key", base_url=base, history=PollingHistory(file), on_event=events.append) as client,
        ):
            for _ in range(4):
                client.generate("a fox", width=64, height=64)
        polls.append(sum(event.kind == "polled" for event in events))

    assert list(json.loads(file.read_text())["kinds"]) == ["127.0.0.1 flux-2-pro 0 0"]
    assert polls[1] < 0.75 * polls[0]


def test_a_poll_that_is_refused_holds_the_polls_of_all_tasks_back():
    """Six tasks are polled side by side; a refusal keeps the polls of all of them back for the seconds it names."""
    polled, refused = [], []
    rule = FaultRule(on="poll", do="status", status=429, retry_after=3, nth=7)

    def note(request, answer):
        if "get_result" in request.url:
            (refused if answer.status == 429 else polled).append(of.clock.now())
        return answer

    of = FaceToFace(seconds=5.0, history=PollingHistory(), trouble=[rule], intercept=note)
    assert sum(made.image is not None for made in of.generate_many(["a fox"] * 6, width=64, height=64)) == 6

    # The second poll of the first task is refused; those of the others are due at the same moment, and leave.
    assert (len(refused), polled.count(refused[0])) == (1, 5)
    assert min(moment for moment in polled if moment > refused[0]) == refused[0] + 3
