"""For tests of code that calls FLUX: a pretend clock, client and server face to face, and a real server on loopback.

With pytest the fixtures `fluxwerk_server` (a base URL, real HTTP) and `face_to_face` are there once the package is
installed.  Names are loaded when they are first used: pytest loads this package in every suite of the environment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxwerk.server.loopback import loopback
    from fluxwerk.testing.cassette import Cassette
    from fluxwerk.testing.clock import PretendClock
    from fluxwerk.testing.face_to_face import FaceToFace
    from fluxwerk.testing.server import LocalServer, SeenRequest, local_server

__all__ = ["Cassette", "FaceToFace", "LocalServer", "PretendClock", "SeenRequest", "local_server", "loopback"]

HOMES = {
    "Cassette": "fluxwerk.testing.cassette",
    "LocalServer": "fluxwerk.testing.server",
    "SeenRequest": "fluxwerk.testing.server",
    "local_server": "fluxwerk.testing.server",
    "FaceToFace": "fluxwerk.testing.face_to_face",
    "PretendClock": "fluxwerk.testing.clock",
    "loopback": "fluxwerk.server.loopback",
}


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(HOMES[name]), name)
    except ModuleNotFoundError as missing:
        text = f"fluxwerk.testing needs one more package ({missing.name}): pip install 'fluxwerk[server]'"
        raise ModuleNotFoundError(text, name=missing.name) from None
