"""The time that the offline engine takes for an image of 1024 x 1024.

Run by hand, on a quiet machine: python bench/offline.py
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from datetime import UTC, datetime

from fluxwerk.engines import Order
from fluxwerk.engines.offline import OfflineEngine

PROMPTS = {
    "mountains": "A serene mountain landscape at sunset",
    "lake": "a lake at night",
    "sea": "ocean waves",
    "dunes": "desert dunes",
    "forest": "a misty forest",
    "city": "a city skyline at night",
    "paper": "a cave of paper",
    "ribbons": "ribbons of silk",
    "tiles": "a bauhaus poster",
    "discs": "a cat",
}
FORMATS = ("png", "jpeg", "webp")
ROUNDS = 10


def main() -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {_processor()} Python {platform.python_version()}")
    print(f"1024 x 1024, milliseconds, best and median of {ROUNDS}")
    print(f"{'scene':12}" + "".join(f"{name:>16}" for name in FORMATS))
    for scene, prompt in PROMPTS.items():
        cells = [_measured(Order("flux-2-pro", prompt, 42, 1024, 1024, name)) for name in FORMATS]
        print(f"{scene:12}" + "".join(f"{best:8.0f}{median:8.0f}" for best, median in cells))


def _measured(order: Order) -> tuple[float, float]:
    engine, taken = OfflineEngine(), list[float]()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        engine.render(order)
        taken.append(1000 * (time.perf_counter() - start))
    return min(taken), statistics.median(taken)


def _processor() -> str:
    if sys.platform != "linux":
        return platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no path to build
        names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
        return next(names, "unknown")


if __name__ == "__main__":
    main()
