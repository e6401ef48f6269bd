"""The three stages of an image, each on threads of its own, so that they overlap between orders.

Preparing runs the text encoder and encodes references, stepping is the loop, developing runs the VAE and writes the
file.  The thread that steps does nothing else.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from fluxwerk.engines import Order
from fluxwerk.engines.codec import encode
from fluxwerk.engines.local import device, preview
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.group import TurnQueue
from fluxwerk.engines.local.loop import BUDGET, Loop, too_large
from fluxwerk.engines.local.message import Came, Done, RenderFailed, Said
from fluxwerk.engines.local.sample import Sample

SOFTWARE = "fluxwerk diffusers engine"
# Drafts at work at a time; more wait as orders, which take no memory of the device.
ROOM = 64
WRITERS = 2

log = logging.getLogger("fluxwerk.engines.local")


class Stages:
    """Renders orders given from any thread, and tells what becomes of them, from several threads."""

    def __init__(
        self,
        families: Mapping[str, Family],
        tell: Callable[[Said], None],
        *,
        budget: float | None = None,
        previews: bool = False,
    ) -> None:
        self.loop = Loop(budget or BUDGET)
        self._families = families
        self._tell = tell
        self._previews = previews
        self._inbox: queue.SimpleQueue[Sample | int | Exception | None] = queue.SimpleQueue()
        self._line = TurnQueue()
        self._wanted: set[int] = set()
        self._seen: dict[int, tuple[float, Tensor]] = {}
        self._lock = threading.Lock()
        self._room = threading.Semaphore(ROOM)
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._developing = ThreadPoolExecutor(1, thread_name_prefix="develop")
        self._showing = ThreadPoolExecutor(1, thread_name_prefix="show")
        self._writing = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        offloads = any(family.row.offload for family in families.values())
        # Parts that are moved between the GPU and the CPU while others use them would be torn.
        self._turn: AbstractContextManager[object] = threading.RLock() if offloads else nullcontext()

    def submit(self, number: int, order: Order) -> None:
        """Take an order; returns at once."""
        with self._lock:
            self._wanted.add(number)
            self._line.add(number, order)
        self._preparing.submit(self._prepare)

    def cancel(self, number: int) -> None:
        """Give an order up, wherever it is; nothing more is told of it."""
        if self._settle(number):
            self._inbox.put(number)

    def close(self) -> None:
        """Let `run` return; what is unfinished is dropped."""
        self._inbox.put(None)

    def run(self) -> None:
        """Step whatever is there, until `close`, or until nobody listens or the device is lost, which is raised."""
        try:
            while self._take(wait=not len(self.loop.drafts)):
                with self._turn:
                    stepped = self.loop.tick()
                for draft in stepped:
                    self._after(draft)
        finally:
            for pool in (self._preparing, self._developing, self._showing, self._writing):
                self._room.release(ROOM)
                pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, *, wait: bool) -> bool:
        """Take in what came; `False` means the end."""
        while wait or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, Exception):
                raise item
            if isinstance(item, int):
                if self.loop.cancel(item):
                    self._room.release()
            elif item.number in self._wanted:
                self.loop.add(item)
            else:
                self._room.release()
            wait = not len(self.loop.drafts)
        return True

    def _prepare(self) -> None:
        self._room.acquire()
        with self._lock:
            number, order = self._line.take()
        if number not in self._wanted:
            self._room.release()
            return
        family = self._families[order.model]
        try:
            with torch.no_grad(), self._turn, device.lane(family.device):
                draft = family.admit(number, order)
        except Exception as fault:  # noqa: BLE001  (whatever it is, it is this order's alone)
            self._room.release()
            self._fail(number, fault)
        else:
            self._inbox.put(draft)

    def _after(self, draft: Sample) -> None:
        """Tell how far a draft has come, or hand it on."""
        if draft.fault is not None:
            self._room.release()
            self._fail(draft.number, draft.fault)
            return
        # The last part stands for the VAE and the file.
        share = draft.step / (draft.steps + 1)
        if self._previews:
            with self._lock:
                # What waits to be shown gives way to what is newer, so that a slow preview keeps nothing waiting.
                waits = draft.number in self._seen
                self._seen[draft.number] = share, draft.estimate
            if not waits:
                self._showing.submit(self._show, draft)
        else:
            self._tell(Came(draft.number, share))
        if draft.is_done:
            self._developing.submit(self._develop, draft)

    def _show(self, draft: Sample) -> None:
        with self._lock:
            share, estimate = self._seen.pop(draft.number)
        if draft.number not in self._wanted:
            return
        seen = None
        try:
            with self._turn, device.lane(draft.family.device):
                seen = preview.draw(draft, estimate)
        except Exception as fault:  # noqa: BLE001  (the image itself may still succeed)
            log.warning("a preview cannot be drawn: %s: %s", type(fault).__name__, fault)
            if device.is_lost(fault):
                self._inbox.put(fault)
        self._tell(Came(draft.number, share, seen))

    def _develop(self, draft: Sample) -> None:
        family = draft.family
        try:
            if draft.number not in self._wanted:
                return
            with torch.no_grad(), self._turn, device.lane(family.device):
                picture = family.picture(draft)
        except Exception as fault:  # noqa: BLE001
            if isinstance(fault, torch.OutOfMemoryError):
                device.tidy(family.device)
                fault = too_large(draft)
            self._fail(draft.number, fault)
        else:
            self._writing.submit(self._write, draft, picture)
        finally:
            self._room.release()

    def _write(self, draft: Sample, picture: object) -> None:
        order, row = draft.order, draft.family.row
        about = f"model {order.model} by {row.label()}, seed {order.seed}, {draft.steps} steps"
        try:
            file = encode(picture, order.output_format, SOFTWARE, about)  # type: ignore[arg-type]
        except Exception as fault:  # noqa: BLE001
            self._fail(draft.number, fault)
        else:
            if self._settle(draft.number):
                self._tell(Done(draft.number, file))

    def _fail(self, number: int, fault: Exception) -> None:
        if device.is_lost(fault):
            # It is not the order's fault; the process ends, and another one renders it.
            self._inbox.put(fault)
        elif self._settle(number):
            self._tell(RenderFailed(number, type(fault).__name__, str(fault)))

    def _settle(self, number: int) -> bool:
        """Stop wanting an order; `False` if nobody wanted it any more."""
        with self._lock:
            wanted = number in self._wanted
            self._wanted.discard(number)
            return wanted
