"""What `generate` costs beside a loop written by hand with httpx2: CPU of the client's process per image.

Both ask the same offline server, in a process of its own, for the same images, and poll at the same moments.
Run by hand: python bench/overhead.py
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import httpx2

from fluxwerk import Client
from fluxwerk.protocol.patience import poll_pauses

IMAGES = 60
ROUNDS = 5
SIZE = 256


def by_hand(base: str, http: httpx2.Client) -> bytes:
    """Do what most people write first."""
    headers = {"x-key": "bench"}
    body = {"prompt": "a fox", "width": SIZE, "height": SIZE, "seed": 1}
    task = http.post(f"{base}/v1/flux-2-pro", json=body, headers=headers).raise_for_status().json()
    for pause in poll_pauses():
        time.sleep(pause)
        status = http.get(task["polling_url"], headers=headers).raise_for_status().json()
        if status["status"] == "Ready":
            return http.get(status["result"]["sample"]).raise_for_status().content
    raise AssertionError


def cpu(make: Callable[[], object]) -> float:
    """Seconds of CPU of this process per image."""
    began = time.process_time()
    for _ in range(IMAGES):
        make()
    return (time.process_time() - began) / IMAGES


def main() -> None:
    """Print one table."""
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    words = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        base = next(word for word in server.stderr.readline().split() if word.startswith("http://127"))
        with httpx2.Client() as http, Client("bench", base_url=base) as client:
            ours, theirs = [], []
            for _ in range(ROUNDS):
                theirs.append(cpu(lambda: by_hand(base, http)))
                ours.append(cpu(lambda: client.generate("a fox", width=SIZE, height=SIZE, seed=1)))
        server.terminate()
    print(f"by hand   {min(theirs) * 1e3:7.2f} ms of CPU per image (best of {ROUNDS} rounds of {IMAGES})")
    print(f"generate  {min(ours) * 1e3:7.2f} ms of CPU per image")
    print(f"ratio     {min(ours) / min(theirs):7.2f}")


if __name__ == "__main__":
    main()
