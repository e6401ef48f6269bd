"""The cost of a complete image face to face on the pretend clock, for growing numbers of images.

Run by hand: python bench/face.py
"""

import os
import platform
import time

from fluxwerk.testing import FaceToFace

COUNTS = (1_000, 3_000, 10_000)
SECONDS_EACH = 2.0


def jobs(count: int) -> tuple[float, float]:
    """Make `count` images one after another; return seconds of CPU and pretend seconds."""
    pair = FaceToFace(seconds=SECONDS_EACH)
    first = pair.clock.now()
    began = time.process_time()
    for number in range(count):
        image = pair.generate(f"job {number}", width=64, height=64)
        assert image.width == 64
    return time.process_time() - began, pair.clock.now() - first


def main() -> None:
    """Print one table."""
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    print(f"{'jobs':>8}{'CPU':>10}{'per job':>12}{'pretend':>12}")
    for count in COUNTS:
        spent, pretend = jobs(count)
        print(f"{count:8}{spent:8.2f} s{spent / count * 1e6:9.0f} µs{pretend / 3600:10.2f} h")


if __name__ == "__main__":
    main()
