"""What a server without a state keeps has a bound in bytes."""

from __future__ import annotations

import io
import random
from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import MemoryStore
from fluxwerk.testing import FaceToFace
from support.asking import Broken, ask, kept, poll, post


@cache
def noise() -> bytes:
    """An image that is large beside the row of its task."""
    file = io.BytesIO()
    Image.frombytes("RGB", (256, 256), random.Random(0).randbytes(3 * 256 * 256)).save(file, "PNG")
    return file.getvalue()


class Noisy:
    name = "noisy"

    def render(self, _: object) -> bytes:
        return noise()


def server(images: int, **how) -> FaceToFace:
    """Return a server with room for so many images, and for their rows."""
    store = MemoryStore(most=images * len(noise()) + len(noise()) // 2)
    return FaceToFace(**{"accounts": Accounts(store=store), "engine": Noisy(), **how})


def submit(of: FaceToFace):
    return post(of, {"prompt": "x", "width": 64, "height": 64})


def test_the_oldest_images_go_when_the_memory_is_full():
    of = server(3)
    tasks = [submit(of) for _ in range(5)]
    assert [poll(of, task)["status"] for task in tasks] == ["Task not found"] * 2 + ["Ready"] * 3


def test_a_delivered_image_goes_before_one_that_nobody_has_fetched():
    of = server(2)
    tasks = [submit(of) for _ in range(2)]
    assert ask(of, "GET", poll(of, tasks[1])["result"]["sample"], key=None).status == 200
    tasks.append(submit(of))
    assert [poll(of, task)["status"] for task in tasks] == ["Ready", "Task not found", "Ready"]


def test_long_prompts_fill_the_memory_too():
    of = server(3, engine=None)
    for _ in range(200):
        post(of, {"prompt": "x" * 30_000})
    (held,) = of.state.store.database.ask("select sum(length(prompt)) as prompts from task")
    assert held["prompts"] < 4 * len(noise())
    assert of.state.store.excess() == 0
    assert kept(of.state)


def test_tasks_that_ended_without_an_image_go_when_the_memory_is_full():
    of = server(1, engine=Broken())
    tasks = [post(of, {"prompt": "x" * 30_000}) for _ in range(10)]
    of.clock.sleep(1)
    statuses = [poll(of, task)["status"] for task in tasks]
    gone = statuses.count("Task not found")
    assert 0 < gone < 10
    assert statuses == ["Task not found"] * gone + ["Error"] * (10 - gone)


def test_an_image_that_may_not_be_shown_yet_does_not_go():
    of = server(1, seconds=5)
    tasks = [submit(of) for _ in range(3)]
    of.clock.sleep(5)
    assert [poll(of, task)["status"] for task in tasks] == ["Ready"] * 3


names = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=9)))))
def test_what_is_held_is_the_sum_of_all_objects(moves):
    storage, model = MemoryStorage(), {}
    for name, data in moves:
        if data is None:
            storage.remove(name)
            model.pop(name, None)
        else:
            storage.put(name, data, overwrite=True)
            model[name] = data
        assert storage.held == sum(map(len, model.values()))
