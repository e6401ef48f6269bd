"""The process that holds a device: `python -m fluxwerk.engines.local.worker`, started by the server's process.

Pickled commands arrive on stdin, and pickled replies leave on the original stdout; library output goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from fluxwerk.engines.local.message import Broken, Command, Ready, Render, Reply, Setup

if TYPE_CHECKING:
    from fluxwerk.engines.local.stages import Stages


def main() -> None:
    """Load the weights, warm up, and render until the server closes the pipe."""
    # The server decides when this process ends, but a Ctrl-C in the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    incoming, send = sys.stdin.buffer, _sender(_take_stdout())
    with contextlib.suppress(BrokenPipeError, EOFError):
        setup: Setup = pickle.load(incoming)  # noqa: S301  (from the process that started this one)
        stages = _ready(setup, send)
        if stages is not None:
            send(Ready({"device": setup.device}))
            threading.Thread(target=_read, args=(incoming, stages), daemon=True).start()
            stages.run()


def _ready(setup: Setup, send: Callable[[Reply], None]) -> Stages | None:
    """Load the weights and render a warm-up image with each; send `Broken` and return `None` if that fails."""
    from fluxwerk.engines.local.foreign import torch  # noqa: PLC0415  (takes seconds)
    from fluxwerk.engines.local.load import UnloadableError, load  # noqa: PLC0415
    from fluxwerk.engines.local.stages import Stages  # noqa: PLC0415
    from fluxwerk.engines.local.warm import warm  # noqa: PLC0415

    names = ", ".join(row.label() for row in setup.rows)
    try:
        families = load(setup.rows, setup.device, compiled=setup.compiled)
        warm(families.values(), setup.warm)
    except UnloadableError as fault:
        send(Broken(str(fault)))
    except torch.OutOfMemoryError:
        hint = 'set quantize = "fp8", offload = "model" or another device in weights.toml'
        send(Broken(f"{setup.device} has too little memory for {names}; {hint}."))
    except Exception as fault:  # noqa: BLE001  (a missing device, a missing compiler, ...)
        traceback.print_exc()
        send(Broken(f"{names} cannot be used on {setup.device}: {type(fault).__name__}: {fault}"))
    else:
        return Stages(families, send, budget=setup.budget, previews=setup.previews)
    return None


def _read(incoming: BinaryIO, stages: Stages) -> None:
    """Pass commands to the stages until the pipe closes, which may be in the middle of a message."""
    try:
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                command: Command = pickle.load(incoming)  # noqa: S301
                if isinstance(command, Render):
                    stages.submit(command.number, command.order)
                else:
                    stages.cancel(command.number)
    finally:
        # No further command can arrive, so the device must be released, whatever the reason.
        stages.close()


def _take_stdout() -> BinaryIO:
    """Return the original stdout for messages, and redirect later output to stderr."""
    original = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return original


def _sender(outgoing: BinaryIO) -> Callable[[Reply], None]:
    lock = threading.Lock()

    def send(reply: Reply) -> None:
        with lock:
            pickle.dump(reply, outgoing)
            outgoing.flush()

    return send


if __name__ == "__main__":
    main()
