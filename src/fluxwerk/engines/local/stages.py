"""The stages of an image, each on its own threads, so that the stages of several orders overlap.

Preparing runs the text encoder and encodes references, stepping is the loop, decoding runs the VAE, and writing
encodes the file. The thread that steps does nothing else.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from PIL import Image

from fluxwerk.engines import Order
from fluxwerk.engines.codec import encode
from fluxwerk.engines.local import device, preview
from fluxwerk.engines.local.family import Family
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.group import TurnQueue
from fluxwerk.engines.local.loop import PASS_BUDGET, Loop, too_large
from fluxwerk.engines.local.message import Done, Progressed, RenderFailed, Reply
from fluxwerk.engines.local.sample import Sample

SOFTWARE = "fluxwerk diffusers engine"
# Samples in progress at a time; further orders wait, because a waiting order takes no memory of the device.
MOST_SAMPLES = 64
WRITERS = 2

log = logging.getLogger("fluxwerk.engines.local")


class Stages:
    """Renders orders; `submit` and `cancel` may be called from any thread, and `send` is called from several."""

    def __init__(
        self,
        families: Mapping[str, Family],
        send: Callable[[Reply], None],
        *,
        budget: float | None = None,
        previews: bool = False,
    ) -> None:
        self.loop = Loop(budget or PASS_BUDGET)
        self._families = families
        self._send = send
        self._previews = previews
        self._inbox: queue.SimpleQueue[Sample | int | Exception | None] = queue.SimpleQueue()
        self._queue = TurnQueue()
        self._wanted: set[int] = set()
        self._estimates: dict[int, tuple[float, Tensor]] = {}
        self._lock = threading.Lock()
        self._room = threading.Semaphore(MOST_SAMPLES)
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._previewing = ThreadPoolExecutor(1, thread_name_prefix="show")
        self._writing = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        offloads = any(family.row.offload for family in families.values())
        # Offloading moves parts between GPU and CPU, so only one thread at a time may use them.
        self._exclusive: AbstractContextManager[object] = threading.RLock() if offloads else nullcontext()

    def submit(self, number: int, order: Order) -> None:
        """Accept an order and return at once."""
        with self._lock:
            self._wanted.add(number)
            self._queue.add(number, order)
        self._preparing.submit(self._prepare)

    def cancel(self, number: int) -> None:
        """Stop rendering an order at any stage; no further reply is sent for it."""
        if self._settle(number):
            self._inbox.put(number)

    def close(self) -> None:
        """Let `run` return; unfinished orders are dropped."""
        self._inbox.put(None)

    def run(self) -> None:
        """Step samples until `close`; raises what `send` raises, or the fault that lost the device."""
        try:
            while self._take(wait=not len(self.loop.samples)):
                with self._exclusive:
                    stepped = self.loop.tick()
                for sample in stepped:
                    self._report(sample)
        finally:
            for pool in (self._preparing, self._decoding, self._previewing, self._writing):
                self._room.release(MOST_SAMPLES)
                pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, *, wait: bool) -> bool:
        """Process the inbox and return whether to go on."""
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
            wait = not len(self.loop.samples)
        return True

    def _prepare(self) -> None:
        self._room.acquire()
        with self._lock:
            number, order = self._queue.take()
        if number not in self._wanted:
            self._room.release()
            return
        family = self._families[order.model]
        try:
            with torch.no_grad(), self._exclusive, device.stream(family.device):
                sample = family.prepare(number, family.upsample(order))
        except Exception as fault:  # noqa: BLE001  (any fault concerns only this order)
            self._room.release()
            self._fail(number, fault)
        else:
            self._inbox.put(sample)

    def _report(self, sample: Sample) -> None:
        """Report the progress of a sample, and pass a finished one to the next stage."""
        if sample.fault is not None:
            self._room.release()
            self._fail(sample.number, sample.fault)
            return
        # The last share is that of the VAE and the file.
        share = sample.step / (sample.steps + 1)
        if self._previews:
            with self._lock:
                # A newer estimate replaces one that still waits, so that slow previews do not queue up.
                waits = sample.number in self._estimates
                self._estimates[sample.number] = share, sample.estimate
            if not waits:
                self._previewing.submit(self._preview, sample)
        else:
            self._send(Progressed(sample.number, share))
        if sample.is_done:
            self._decoding.submit(self._decode, sample)

    def _preview(self, sample: Sample) -> None:
        with self._lock:
            share, estimate = self._estimates.pop(sample.number)
        if sample.number not in self._wanted:
            return
        file = None
        try:
            with self._exclusive, device.stream(sample.family.device):
                file = preview.draw(sample, estimate)
        except Exception as fault:  # noqa: BLE001  (the image itself may still succeed)
            log.warning("A preview cannot be drawn: %s: %s", type(fault).__name__, fault)
            if device.is_lost(fault):
                self._inbox.put(fault)
        self._send(Progressed(sample.number, share, file))

    def _decode(self, sample: Sample) -> None:
        family = sample.family
        try:
            if sample.number not in self._wanted:
                return
            with torch.no_grad(), self._exclusive, device.stream(family.device):
                image = _finish(sample)
        except Exception as fault:  # noqa: BLE001
            if isinstance(fault, torch.OutOfMemoryError):
                device.free_memory(family.device)
                fault = too_large(sample)
            self._fail(sample.number, fault)
        else:
            self._writing.submit(self._write, sample, image)
        finally:
            self._room.release()

    def _write(self, sample: Sample, image: object) -> None:
        order, row = sample.order, sample.family.row
        about = f"model {order.model} by {row.label()}, seed {order.seed}, {sample.steps} steps"
        try:
            file = encode(image, order.output_format, SOFTWARE, about)  # type: ignore[arg-type]
        except Exception as fault:  # noqa: BLE001
            self._fail(sample.number, fault)
        else:
            if self._settle(sample.number):
                self._send(Done(sample.number, file))

    def _fail(self, number: int, fault: Exception) -> None:
        if device.is_lost(fault):
            # The order is not at fault: this process ends, and its successor renders the order again.
            self._inbox.put(fault)
        elif self._settle(number):
            self._send(RenderFailed(number, type(fault).__name__, str(fault)))

    def _settle(self, number: int) -> bool:
        """Mark an order as answered; `False` if it was answered or cancelled before."""
        with self._lock:
            was_wanted = number in self._wanted
            self._wanted.discard(number)
            return was_wanted


def _finish(sample: Sample) -> Image.Image:
    """Return the finished image; one that does not fit into memory is decoded once more, in tiles."""
    family = sample.family
    try:
        return family.finish(sample)
    except torch.OutOfMemoryError:
        log.warning("An image of %dx%d does not fit into memory; it is decoded in tiles.", *sample.shape[0])
    # Not in the handler, because its exception holds what the first attempt has taken.
    device.free_memory(family.device)
    return family.finish_in_tiles(sample)
