"""The time of a start: importing the library and showing the help, beside a bare interpreter.

Run by hand: python bench/start.py
"""

import os
import platform
import statistics
import subprocess
import sys
import time

TRIALS = 15
HTTP = "import fluxwerk, sys; fluxwerk.Client; print('httpx2' in sys.modules)"
CASES = {
    "bare interpreter": ["-c", "pass"],
    "import fluxwerk": ["-c", "import fluxwerk"],
    "import fluxwerk and name Client": ["-c", "import fluxwerk; fluxwerk.Client"],
    "import httpx2, for comparison": ["-c", "import httpx2"],
    "fluxwerk --help": ["-m", "fluxwerk", "--help"],
}


def seconds(words: list[str]) -> list[float]:
    """Run the interpreter with these arguments and return the seconds of each trial."""
    taken: list[float] = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    """Print one table."""
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    print(f"{'':34}{'best':>9}{'median':>9}{'beyond bare':>13}")
    bare = None
    for name, words in CASES.items():
        taken = seconds(words)
        best = min(taken)
        bare = best if bare is None else bare
        print(f"{name:34}{best * 1e3:6.0f} ms{statistics.median(taken) * 1e3:6.0f} ms{(best - bare) * 1e3:10.0f} ms")
    loaded = subprocess.run([sys.executable, "-c", HTTP], check=True, capture_output=True, text=True).stdout.strip()
    print(f"an HTTP library is loaded by naming Client: {loaded}")


if __name__ == "__main__":
    main()
