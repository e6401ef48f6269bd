"""The far end of the pipe: whatever becomes of the server, no engine process stays behind."""

from __future__ import annotations

import io
import pickle

import pytest

from fluxwerk.engines import Order
from fluxwerk.engines.local.message import Cancel, Render
from fluxwerk.engines.local.worker import _read

FOX = Order("flux-2-klein-4b", "a red fox", 7, 64, 64, references=(bytes(100),))
ASKED = pickle.dumps(Render(1, FOX)) + pickle.dumps(Cancel(1))


class Listening:
    """Stages that only note what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def submit(self, number: int, order: Order) -> None:
        self.asked.append((number, order))

    def cancel(self, number: int) -> None:
        self.asked.append(number)

    def close(self) -> None:
        self.asked.append("closed")


@pytest.mark.parametrize("left_out", [0, 1, 20, 120])
def test_a_server_that_hangs_up_even_within_a_message_ends_the_process(left_out: int) -> None:
    stages = Listening()
    whole = ASKED + ASKED
    _read(io.BytesIO(whole[: len(whole) - left_out]), stages)
    assert stages.asked[:2] == [(1, FOX), 1]
    assert stages.asked[-1] == "closed"
