"""`fluxwerk serve` as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def process(*options: object, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """`fluxwerk serve` in a process of its own; yields its base URL when it listens."""
    command = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0", *map(str, options)]
    surroundings = {**os.environ, "no_proxy": "*", **(environment or {})}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=surroundings) as running:
        try:
            first = running.stderr.readline()
            yield re.search(r"http://\S+:\d+", first)[0], running
        finally:
            running.kill()
