"""The fault matrix: every fault that the server can produce, with both clients, over real HTTP.

Each trial checks: the right image or the right error, no second submit, no key on a foreign host, no hang past the
deadline, no wrong file accepted as an image.

Then the faults that leave a doubt, each with the submit taken and not taken, alone and five at once, before a server
that ignores keys as the live one does: the balance of an account that nobody else uses has to settle them.  These run
face to face on a pretend clock, since a balance is believed two minutes after the doubt.
Run by hand: python bench/faults.py [trials]
"""

import asyncio
import os
import platform
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import fluxwerk
from fluxwerk import AsyncClient, Client, Image, imagefile
from fluxwerk.server.faults.rules import FaultRule, Faults
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace, loopback

TRIALS = 5
DEADLINE = 4.0
# The time that a client may take beyond its deadline on a busy machine.
GRACE = 1.0
KEY = "a-key-that-must-not-leak"
IMAGE = "Image"

# where the fault happens, the fault, and the right ending
MATRIX: list[tuple[str, dict[str, Any], str]] = [
    ("submit", {"do": "status", "status": 500}, "InDoubtError"),
    ("submit", {"do": "status", "status": 500, "accepted": True}, "InDoubtError"),
    ("submit", {"do": "status", "status": 504, "accepted": True}, "InDoubtError"),
    ("submit", {"do": "status", "status": 503, "retry_after": 1, "first": 1}, IMAGE),
    ("submit", {"do": "status", "status": 503}, "InDoubtError"),
    ("submit", {"do": "status", "status": 429, "retry_after": 1, "first": 1}, IMAGE),
    ("submit", {"do": "status", "status": 429, "first": 1}, IMAGE),
    ("submit", {"do": "status", "status": 429, "retry_after": 500}, "RateLimitError"),
    ("submit", {"do": "status", "status": 402}, "InsufficientCreditsError"),
    ("submit", {"do": "status", "status": 403}, "AuthenticationError"),
    ("submit", {"do": "status", "status": 422}, "InvalidRequestError"),
    ("submit", {"do": "page", "status": 200, "accepted": True}, "InDoubtError"),
    ("submit", {"do": "page", "status": 502}, "InDoubtError"),
    ("submit", {"do": "redirect", "to": "FOREIGN"}, "APIStatusError"),
    ("submit", {"do": "garble", "accepted": True}, "InDoubtError"),
    ("submit", {"do": "reset"}, "InDoubtError"),
    ("submit", {"do": "reset", "accepted": True}, "InDoubtError"),
    ("submit", {"do": "cut"}, "InDoubtError"),
    ("submit", {"do": "stall"}, "InDoubtError"),
    ("submit", {"do": "delay", "seconds": 0.5}, IMAGE),
    ("submit", {"do": "moderate", "stage": "request"}, "ModerationError"),
    ("submit", {"do": "moderate", "stage": "content"}, "ModerationError"),
    ("submit", {"do": "fail"}, "TaskFailedError"),
    ("submit", {"do": "stick"}, "TaskTimeoutError"),
    ("poll", {"do": "status", "status": 500, "first": 2}, IMAGE),
    ("poll", {"do": "status", "status": 403, "first": 2}, IMAGE),
    ("poll", {"do": "status", "status": 403}, "AuthenticationError"),
    ("poll", {"do": "status", "status": 429, "retry_after": 1, "first": 1}, IMAGE),
    ("poll", {"do": "status", "status": 503, "retry_after": 1, "first": 1}, IMAGE),
    ("poll", {"do": "page", "status": 200, "first": 2}, IMAGE),
    ("poll", {"do": "redirect", "to": "FOREIGN", "first": 1}, IMAGE),
    ("poll", {"do": "garble", "first": 2}, IMAGE),
    ("poll", {"do": "reset", "first": 2}, IMAGE),
    ("poll", {"do": "cut", "first": 2}, IMAGE),
    ("poll", {"do": "stall"}, "TaskTimeoutError"),
    ("poll", {"do": "drip", "rate": 20}, "TaskTimeoutError"),
    ("poll", {"do": "delay", "seconds": 0.5, "first": 1}, IMAGE),
    ("poll", {"do": "word", "first": 2}, IMAGE),
    ("poll", {"do": "word"}, "TaskTimeoutError"),
    ("poll", {"do": "forget", "first": 2}, IMAGE),
    ("download", {"do": "status", "status": 500, "first": 1}, IMAGE),
    ("download", {"do": "status", "status": 404, "first": 1}, IMAGE),
    ("download", {"do": "status", "status": 404}, "LinkExpiredError"),
    ("download", {"do": "page", "status": 200, "first": 1}, IMAGE),
    ("download", {"do": "page", "status": 200}, "TaskTimeoutError"),
    ("download", {"do": "redirect", "to": "FOREIGN"}, "UntrustedURLError"),
    ("download", {"do": "garble", "first": 1}, IMAGE),
    ("download", {"do": "type", "first": 1}, IMAGE),
    ("download", {"do": "reset", "first": 1}, IMAGE),
    ("download", {"do": "cut", "first": 1}, IMAGE),
    ("download", {"do": "truncate", "first": 1}, IMAGE),
    ("download", {"do": "truncate"}, "TaskTimeoutError"),
    ("download", {"do": "stall"}, "TaskTimeoutError"),
    ("download", {"do": "drip", "rate": 100}, "TaskTimeoutError"),
    ("download", {"do": "expire", "first": 1}, IMAGE),
    ("download", {"do": "expire"}, "LinkExpiredError"),
]


# Faults whose answer leaves open whether the submit was taken.
DOUBTS: list[dict[str, Any]] = [
    {"do": "status", "status": 500},
    {"do": "status", "status": 504},
    {"do": "page", "status": 502},
    {"do": "page", "status": 200},
    {"do": "garble"},
    {"do": "reset"},
]


class Foreign(BaseHTTPRequestHandler):
    """A foreign host, which records the keys that it receives."""

    keys: list[str] = []  # noqa: RUF012  (one list for the whole run)

    def do_GET(self) -> None:
        """Answer 404, and record the key."""
        if self.headers.get("x-key"):
            self.keys.append(self.headers["x-key"])
        self.send_response(404)
        self.end_headers()

    do_POST = do_GET  # noqa: N815  (the library's names)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def foreign() -> Generator[str]:
    """Run the foreign host."""
    with HTTPServer(("127.0.0.1", 0), Foreign) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/elsewhere"
        host.shutdown()


def attempt(base: str, *, alone: bool) -> tuple[str, float, Image | None]:
    """Make one image with one of the clients; return how it ended, the seconds, and the image."""
    began = time.monotonic()
    image = None
    try:
        image = once(base) if alone else asyncio.run(once_async(base))
        ending = IMAGE
    except fluxwerk.FluxwerkError as error:
        ending = type(error).__name__
    return ending, time.monotonic() - began, image


def once(base: str) -> Image:
    """Use the blocking client."""
    with Client(KEY, base_url=base, timeout=DEADLINE) as client:
        return client.generate("a fox", width=256, height=256, seed=1)


async def once_async(base: str) -> Image:
    """Use the asyncio client."""
    async with AsyncClient(KEY, base_url=base, timeout=DEADLINE) as client:
        return await client.generate("a fox", width=256, height=256, seed=1)


def settle(fault: dict[str, Any], *, accepted: bool, many: int) -> tuple[int, int, int, int]:
    """Meet a fault with so many submits at once; return images, charged and lost, in doubt, and charged twice."""
    rule = FaultRule.model_validate({"on": "submit", **fault, "accepted": accepted, "first": many})
    face = FaceToFace(trouble=[rule], account="exclusive")
    results = list(face.generate_many([f"fox {number}" for number in range(many)], width=64, height=64))
    images = sum(result.image is not None for result in results)
    lost = sum("It was charged" in str(result.error) for result in results)
    charged = len(face.state.tasks.all(face.clock.now()))
    return images, lost, many - images - lost, charged - images - lost


def print_doubts() -> None:
    """Print what the balance settled."""
    trials = images = lost = doubts = twice = 0
    for fault in DOUBTS:
        for accepted in (False, True):
            for many in (1, 5):
                found = settle(fault, accepted=accepted, many=many)
                trials += many
                images, lost = images + found[0], lost + found[1]
                doubts, twice = doubts + found[2], twice + found[3]
                if found[2] or found[3]:
                    print(f"  {fault} accepted={accepted} × {many}: {found[2]} in doubt, {found[3]} charged twice")
    print(f"lost answers            {trials}, taken and not taken, alone and five at once")
    print(f"images after settling   {images}")
    print(f"charged, image lost     {lost}")
    print(f"left in doubt           {doubts}")
    print(f"charged twice           {twice}")


def main() -> None:
    """Print a line for each fault that was handled wrongly, and the sums."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    print(f"{time.strftime('%F')}  {platform.platform()}  Python {platform.python_version()}  {os.cpu_count()} cores")
    right = total = doubles = hangs = wrong_files = 0
    with foreign() as elsewhere:
        for on, how, expected in MATRIX:
            for number in range(2 * trials):
                to = {"to": elsewhere} if how.get("to") == "FOREIGN" else {}
                rule = FaultRule.model_validate({"on": on, **how, **to})
                books = Accounts()
                with loopback(accounts=books, trouble=Faults([rule])) as base:
                    ending, seconds, image = attempt(base, alone=number % 2 == 0)
                total += 1
                right += ending == expected
                doubles += len(books.tasks.all(0.0)) > 1
                hangs += seconds > DEADLINE + GRACE
                wrong_files += image is not None and (imagefile.fault(image.data) is not None or image.width != 256)
                if ending != expected or seconds > DEADLINE + GRACE:
                    print(f"  {on} {how}: {ending} after {seconds:.1f} s, expected {expected}")
    print(f"faults                  {len(MATRIX)} × {trials} trials × sync and async = {total}")
    print(f"right image or error    {right} ({100 * right / total:.1f} %)")
    print(f"submitted twice         {doubles}")
    print(f"keys on a foreign host  {len(Foreign.keys)}")
    print(f"hangs past the deadline {hangs}")
    print(f"wrong files accepted    {wrong_files}")
    print_doubts()


if __name__ == "__main__":
    main()
