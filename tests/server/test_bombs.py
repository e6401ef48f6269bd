"""Image bombs in a process of their own, so that its peak of memory is the bomb's: refused, and cheaply."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from fluxwerk.imagefile import PNG_SIGNATURE

# What the process needs by itself, with room for one refused file of a few megabytes.
MEGABYTES = 130
PROGRAM = """
import base64, json, re, sys
sys.path.insert(0, sys.argv[1])
from support.asking import face, kept, post
from fluxwerk.engines.offline import OfflineEngine
from support.images import jpeg
data = sys.stdin.buffer.read()
of = face(engine=OfflineEngine())
names = ["input_image", *(f"input_image_{n}" for n in range(2, int(sys.argv[2]) + 1))]
images = dict.fromkeys(names, base64.b64encode(data).decode())
answer = post(of, {"prompt": "x", "width": 64, "height": 64, **images})
body = json.loads(answer.body)
word = kept(of.state)[body["id"]].word if answer.status == 200 else "refused"
print(answer.status, word, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def vast(width: int, height: int, claimed: tuple[int, int] | None = None) -> bytes:
    """A whole PNG of one colour, some hundred kilobytes for any size; it may claim another."""
    packer = zlib.compressobj(9)
    row = b"\0" * (width * 3 + 1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", *(claimed or (width, height)), 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8000, 4000)).save(file, "WEBP", lossless=True, method=0)
    return file.getvalue()


def talkative() -> bytes:
    plain = vast(64, 64)
    return plain[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"0" * 200_000_000, 9)) + plain[33:]


def film() -> bytes:
    """A picture that moves: one frame counts, the rest is never decoded."""
    frames = [Image.new("RGB", (1000, 1000), (n, n, n)) for n in range(60)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0)
    return file.getvalue()


def disguised() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(file, "TIFF")
    return file.getvalue()


BOMBS = {
    "81 megapixels": (lambda: vast(9000, 9000), "422 refused"),
    "400 megapixels": (lambda: vast(20_000, 20_000), "422 refused"),
    "a claim of four billion": (lambda: vast(64, 64, (65_535, 65_535)), "422 refused"),
    "a WebP of 32 megapixels": (webp, "422 refused"),
    "200 MB of text in a chunk": (talkative, "200 Error"),
    "more rows than claimed": (lambda: vast(3000, 3000, (64, 64)), "200 Ready"),
    "a film of sixty frames": (film, "200 Ready"),
    "a format that is not on the list": (disguised, "422 refused"),
}


# A child's ru_maxrss begins with its parent's, so the peak is read where the kernel counts it for this process alone.
measured = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")


def submit(data: bytes, request: pytest.FixtureRequest, copies: int = 1) -> tuple[str, int]:
    """How the answer and the task end, and the most memory that the process needed for it, in megabytes."""
    command = [sys.executable, "-c", PROGRAM, str(request.path.parents[1]), str(copies)]
    done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)
    said, _, peak = done.stdout.decode().strip().rpartition(" ")
    return said, int(peak)


@measured
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_an_answer_and_needs_little_memory(name, request):
    make, ending = BOMBS[name]
    said, peak = submit(make(), request)
    assert said == ending
    assert peak < MEGABYTES


@measured
def test_eight_large_images_need_little_more_memory_than_one(request):
    """Eight images of twenty megapixels need hardly more memory than one."""
    largest = vast(5000, 4000)
    one, eight = submit(largest, request), submit(largest, request, copies=8)
    assert one[0] == eight[0] == "200 Ready"
    assert eight[1] < one[1] + MEGABYTES / 4
