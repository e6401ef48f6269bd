"""A network of one's own: a namespace that is joined to this machine by one cable, which can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# TEST-NET-2, which no real machine has (RFC 5737).
NETWORK, NEAR, FAR = "198.51.100.0/30", "198.51.100.1", "198.51.100.2"


@dataclass(frozen=True)
class Namespace:
    """The far end of the cable; what is started with its `prefix` reaches this machine at `NEAR` alone."""

    name: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Lose every packet from now on."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.name, "up")


@contextmanager
def namespace() -> Iterator[Namespace | None]:
    """Make a namespace; yields `None` where this user or machine may not."""
    made = Namespace(f"fw{os.getpid()}")
    if os.geteuid() != 0 or shutil.which("ip") is None or not _ip("netns", "add", made.name):
        yield None
        return
    try:
        joined = _ip("link", "add", made.name, "type", "veth", "peer", "name", "far", "netns", made.name)
        for words in (
            ("addr", "add", f"{NEAR}/30", "dev", made.name),
            ("link", "set", made.name, "up"),
            ("-n", made.name, "addr", "add", f"{FAR}/30", "dev", "far"),
            ("-n", made.name, "link", "set", "far", "up"),
            ("-n", made.name, "link", "set", "lo", "up"),
        ):
            joined = joined and _ip(*words)
        yield made if joined else None
    finally:
        _ip("netns", "delete", made.name)
        _ip("link", "delete", made.name)


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], check=False, capture_output=True).returncode == 0
