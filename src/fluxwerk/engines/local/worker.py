"""The process that holds a device: `python -m fluxwerk.engines.local.worker`, started by the server's process.

Pickled messages come in on stdin and go out on what was stdout; whatever a library prints goes to stderr.
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

from fluxwerk.engines.local.message import Broken, Cancel, Paint, Ready, Said, Setup

if TYPE_CHECKING:
    from fluxwerk.engines.local.stages import Stages


def main() -> None:
    """Load, get warm, then render until the other end hangs up."""
    # The server decides when this ends; a Ctrl-C in the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    incoming, tell = sys.stdin.buffer, _teller(_claimed_stdout())
    with contextlib.suppress(BrokenPipeError, EOFError):
        setup: Setup = pickle.load(incoming)  # noqa: S301  (from the process that started this one)
        stages = _ready(setup, tell)
        if stages is not None:
            tell(Ready({"device": setup.device}))
            threading.Thread(target=_read, args=(incoming, stages), daemon=True).start()
            stages.run()


def _ready(setup: Setup, tell: Callable[[Said], None]) -> Stages | None:
    """Load the weights and render something small with each, or say why not."""
    from fluxwerk.engines.local.foreign import torch  # noqa: PLC0415  (takes seconds)
    from fluxwerk.engines.local.load import UnloadableError, load  # noqa: PLC0415
    from fluxwerk.engines.local.stages import Stages  # noqa: PLC0415
    from fluxwerk.engines.local.warm import warm  # noqa: PLC0415

    names = ", ".join(row.label() for row in setup.rows)
    try:
        families = load(setup.rows, setup.device, compiled=setup.compiled)
        warm(families.values(), setup.warm)
    except UnloadableError as fault:
        tell(Broken(str(fault)))
    except torch.OutOfMemoryError:
        hint = 'quantize = "fp8", offload = "model" or a device of its own in weights.toml help'
        tell(Broken(f"{setup.device} has too little memory for {names}; {hint}."))
    except Exception as fault:  # noqa: BLE001  (a device that is not there, a compiler that is missing, ...)
        traceback.print_exc()
        tell(Broken(f"{names} cannot be used on {setup.device}: {type(fault).__name__}: {fault}"))
    else:
        return Stages(families, tell, budget=setup.budget, previews=setup.previews)
    return None


def _read(incoming: BinaryIO, stages: Stages) -> None:
    """Hand on what is asked, until the other end hangs up, or dies in the middle of a message."""
    try:
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                asked = pickle.load(incoming)  # noqa: S301
                if isinstance(asked, Paint):
                    stages.submit(asked.number, asked.order)
                elif isinstance(asked, Cancel):
                    stages.cancel(asked.number)
    finally:
        # Whatever it was, nobody asks any more, and the device must not be held for nobody.
        stages.close()


def _claimed_stdout() -> BinaryIO:
    """Keep stdout for messages, and send to stderr what anything else prints."""
    claimed = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return claimed


def _teller(outgoing: BinaryIO) -> Callable[[Said], None]:
    lock = threading.Lock()

    def tell(said: Said) -> None:
        with lock:
            pickle.dump(said, outgoing)
            outgoing.flush()

    return tell


if __name__ == "__main__":
    main()
