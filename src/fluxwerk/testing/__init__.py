"""For tests of code that calls FLUX: a pretend clock, client and server face to face, and a real server on loopback.

With pytest the fixtures `fluxwerk_server` (a base URL, real HTTP) and `face_to_face` are there once the package is
installed.
"""

from __future__ import annotations

from fluxwerk.server.loopback import loopback
from fluxwerk.testing.clock import PretendClock
from fluxwerk.testing.face import FaceToFace

__all__ = ["FaceToFace", "PretendClock", "loopback"]
