"""How light the studio is: bytes, first paint, time until it answers, and a gallery of many images.

Run by hand, on a quiet machine: python bench/page.py [images].  It needs Chromium and Playwright.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fluxwerk import catalog
from fluxwerk.engines import Order
from fluxwerk.engines.codec import encode
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.app import build
from fluxwerk.server.loopback import config_of, listen
from fluxwerk.server.page import files
from fluxwerk.server.state.accounts import Accounts, digest_of
from fluxwerk.server.state.state import ServerState
from fluxwerk.server.state.store import DiskStore
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.types import Task

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-precise-memory-info"]
KEEP = 1e8
# What the page is asked for once it stands: when it painted, and when its form could be used.
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
WATCH = """() => {
  window.longTasks = [];
  window.scripts = [];
  new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
    .observe({ type: "longtask" });
  new PerformanceObserver((list) => list.getEntries().forEach((frame) =>
    window.scripts.push(...frame.scripts.map((one) => one.duration)))).observe({ type: "long-animation-frame" });
}"""
# Down to the end of everything, where older images are asked for on the way.
SCROLL = """async () => {
  let frames = 0;
  let moved = performance.now();
  while (performance.now() - moved < 4000) {
    const before = scrollY;
    scrollBy(0, 400);
    frames += 1;
    await new Promise(requestAnimationFrame);
    if (scrollY !== before) moved = performance.now();
  }
  return [frames, scrollY, document.querySelectorAll(".grid .card").length];
}"""


def fill(state: ServerState, count: int) -> None:
    """Put tasks with small images of many colours into the state, as if they had been made."""
    account = state.accounts.account_of(digest_of("studio"))
    assert account is not None
    model = catalog.get_model("flux-2-pro")
    colours = [(n * 7 % 256, n * 29 % 256, n * 53 % 256) for n in range(64)]
    images = [encode(Image.new("RGB", (256, 256), colour), "jpeg") for colour in colours]
    for number in range(count):
        name = f"00000000-0000-4000-8000-{number:012d}"
        task = Task(name, f"http://127.0.0.1/v1/get_result?id={name}", model.name, Decimal(3), None, Decimal("0.06"))
        order = Order(model.name, f"image number {number} of a long row", number, 256, 256, "jpeg")
        job = TaskRecord(task, account.id, model, order, time.time(), folder=f"{number:048x}")
        add(state, job, images[number % len(images)])


def add(state: ServerState, job: TaskRecord, image: bytes) -> None:
    """Book one task, and end it with its image."""
    account = state.accounts.account_of(job.account)
    assert account is not None
    state.tasks.accept(job, account)
    begun = state.tasks.begin(job.task.id, "bench")
    assert begun is not None
    state.finish(begun, image)


def serve(state: ServerState) -> tuple[uvicorn.Server, threading.Thread, str]:
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(config_of(build(state, OfflineEngine()), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    return server, thread, f"http://127.0.0.1:{listening.getsockname()[1]}"


def spent(trace: bytes) -> list[float]:
    """Return the milliseconds of the processor that the page's tasks took, the longest first.

    What else the machine does lengthens a task, and not this.
    """
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    threads = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == "CrRendererMain"}
    tasks = [one for one in events if one["name"].endswith("RunTask") and (one["pid"], one["tid"]) in threads]
    return sorted((one.get("tdur", 0) / 1000 for one in tasks), reverse=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}")
    loaded = [file.compressed for path, file in files.load() if path.endswith((".js", ".css"))]
    print(f"scripts and styles, compressed: {sum(map(len, loaded)) / 1000:.1f} kB in {len(loaded)} files")
    with tempfile.TemporaryDirectory() as folder:
        state = ServerState(Accounts(keep=KEEP, store=DiskStore(folder)), time.time)
        began = time.perf_counter()
        fill(state, count)
        print(f"{count} images put into the state in {time.perf_counter() - began:.0f} s")
        server, thread, base = serve(state)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            measure(browser, base)
            browser.close()
        server.should_exit = True
        thread.join()


def measure(browser: Browser, base: str) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    for turn in ("cold", "warm"):
        began = time.perf_counter()
        page.goto(base)
        page.wait_for_selector(".composer-foot")
        usable = (time.perf_counter() - began) * 1000
        print(f"{turn}: first paint {page.evaluate(PAINTED):.0f} ms, form usable {usable:.0f} ms")
    page.set_default_timeout(300_000)
    frames, deep, drawn = scroll(page, base)
    print(f"gallery: {frames} frames down to {deep:.0f} px with {drawn} images drawn at a time")
    long: Any = page.evaluate("() => [longTasks.length, Math.max(0, ...longTasks), Math.max(0, ...scripts)]")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(f"gallery: {long[0]} tasks above 50 ms, the longest {long[1]:.0f} ms; of scripts alone {long[2]:.0f} ms")
    print(f"(load of the machine meanwhile: {load:.1f} for each core; the browser paints without a GPU)")
    # Once more, since a trace lengthens what it watches.
    browser.start_tracing(page=page, categories=["toplevel"])
    scroll(page, base)
    tasks = spent(browser.stop_tracing())
    print(f"gallery: the longest tasks took {', '.join(f'{task:.0f}' for task in tasks[:3])} ms of the processor")
    heap = page.evaluate("() => performance.memory.usedJSHeapSize") / 1e6
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    nodes = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}["Nodes"]
    print(f"memory: {heap:.0f} MB of JavaScript, {nodes:.0f} nodes")


def scroll(page: Page, base: str) -> list[int]:
    """Open the gallery anew and scroll down to its end."""
    page.goto(f"{base}/#/gallery")
    page.reload()
    page.wait_for_selector(".grid .card img")
    page.evaluate(WATCH)
    found: list[int] = page.evaluate(SCROLL)
    return found


if __name__ == "__main__":
    main()
