"""A process that speaks as an engine's process does, and renders nothing: started by tests, without torch.

What it does at its start follows from the folder of its first row, what it does with an order from the prompt.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from pathlib import Path

from fluxwerk.engines.local.message import Broken, Cancel, Done, Progressed, Ready, Render, RenderFailed, Setup


def main() -> None:
    """Pretend until the other end hangs up."""
    incoming = sys.stdin.buffer
    setup: Setup = pickle.load(incoming)
    if setup.rows[0].path == "/broken":
        say(Broken("the weights are torn"))
        return
    if setup.rows[0].path == "/babbling":
        sys.stdout.write("a library that writes where it should not")
        sys.stdout.flush()
    elif setup.rows[0].path != "/mute":
        say(Ready())
    while True:
        try:
            asked = pickle.load(incoming)
        except EOFError:
            return
        if isinstance(asked, Cancel):
            say(Done(asked.number + 1, b"cancelled"))
        if isinstance(asked, Render):
            obey(asked, setup)


def obey(asked: Render, setup: Setup) -> None:
    """Do what the prompt says."""
    word, _, rest = asked.order.prompt.partition(" ")
    if word == "die":
        os._exit(9)
    if word == "die-once" and not Path(rest).exists():
        Path(rest).touch()
        os._exit(9)
    say(Progressed(asked.number, 0.5))
    if word == "fail":
        say(RenderFailed(asked.number, "OutOfMemory", rest))
    elif word != "wait":
        say(Done(asked.number, setup.device.encode()))
    if word == "deafen":
        threading.Event().wait()


def say(said: object) -> None:
    """Send a message."""
    pickle.dump(said, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
