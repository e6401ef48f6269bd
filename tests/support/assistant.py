"""An assistant's side of MCP: the SDK's own client over both transports, against a process of our own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcp.client.stdio import StdioServerParameters

from mcp import Client

SOURCE = Path(__file__).parents[2] / "src"
KEPT = ("PATH", "HOME", "PYTHONPATH")


def environment(**extra: str) -> dict[str, str]:
    return {"PYTHONPATH": str(SOURCE), **{name: os.environ[name] for name in KEPT if name in os.environ}, **extra}


def over_stdio(*options: object, **extra: str) -> StdioServerParameters:
    words = ["-m", "fluxwerk", "mcp", *map(str, options)]
    return StdioServerParameters(command=sys.executable, args=words, env=environment(**extra))


def with_pid(server: StdioServerParameters, file: Path) -> StdioServerParameters:
    """The same server, which writes its process id before it begins."""
    words = ["-c", 'echo $$ > "$0"; exec "$@"', str(file), server.command, *server.args]
    return StdioServerParameters(command="sh", args=words, env=server.env)


@contextmanager
def over_http(*options: object, **extra: str) -> Iterator[str]:
    words = [sys.executable, "-m", "fluxwerk", "mcp", "--http", "--port", "0", *map(str, options)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment(**extra)) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.search(r"http://\S+", line)
            assert found, line
            yield found[0]
        finally:
            server.terminate()
            server.communicate()


@contextmanager
def either(transport: str, *options: object, **extra: str) -> Iterator[Any]:
    if transport == "stdio":
        yield over_stdio(*options, **extra)
    else:
        with over_http(*options, **extra) as url:
            yield url


def client(server: Any, **settings: Any) -> Client:
    return Client(server, read_timeout_seconds=60, **settings)
