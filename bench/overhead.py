"""The CPU time of `generate` for each image, beside a loop written by hand with httpx2.

Both request the same images from the same offline server, which is a separate process, and poll at the same moments.
Run by hand: python bench/overhead.py
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import httpx2

from fluxwerk import Client
from fluxwerk.protocol.retry import geometric

IMAGES = 300
SIZE = 256


def by_hand(base: str, http: httpx2.Client) -> bytes:
    """Make one image with the loop that most people write first."""
    headers = {"x-key": "bench"}
    body = {"prompt": "a fox", "width": SIZE, "height": SIZE, "seed": 1}
    task = http.post(f"{base}/v1/flux-2-pro", json=body, headers=headers).raise_for_status().json()
    plan = geometric()
    while True:
        time.sleep(plan(None))
        status = http.get(task["polling_url"], headers=headers).raise_for_status().json()
        if status["status"] == "Ready":
            return http.get(status["result"]["sample"]).raise_for_status().content


def cpu(make: Callable[[], object]) -> float:
    """Return the seconds of CPU of this process for one image."""
    began = time.process_time()
    make()
    return time.process_time() - began


def main() -> None:
    """Print one table."""
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    words = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        base = next(word for word in server.stderr.readline().split() if word.startswith("http://127"))
        ours: list[float] = []
        theirs: list[float] = []
        with httpx2.Client() as http, Client("bench", base_url=base) as client:
            for _ in range(IMAGES):
                # In turn, so that other work on the machine affects both.
                theirs.append(cpu(lambda: by_hand(base, http)))
                ours.append(cpu(lambda: client.generate("a fox", width=SIZE, height=SIZE, seed=1)))
        server.terminate()
    for name, spent in (("by hand", theirs), ("generate", ours)):
        print(f"{name:9}{statistics.median(spent) * 1e3:7.2f} ms of CPU per image, median of {IMAGES}")
    print(f"ratio    {statistics.median(ours) / statistics.median(theirs):7.2f}")


if __name__ == "__main__":
    main()
