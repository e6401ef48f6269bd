"""What a server without a state keeps has a bound in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import MemoryStore
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import blank
from support.asking import ask, poll, post

IMAGE = len(blank(64, 64))


def server(images: int, **how) -> FaceToFace:
    """Return a server with room for so many images of 64×64."""
    return FaceToFace(accounts=Accounts(store=MemoryStore(most=images * IMAGE)), **how)


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
