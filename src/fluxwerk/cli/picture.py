"""A picture in a terminal: by the protocols of kitty and iTerm2, or as coloured half blocks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping

from fluxwerk.client.thumbnail import thumbnail

ITERM = frozenset({"iTerm.app", "WezTerm", "vscode", "mintty"})
# In pixels; a half block is one of them, a cell of kitty or iTerm2 many.
SIDE_IN_TERMINAL, SIDE_IN_BLOCKS = 512, 48
KITTY_CHUNK = 4096


def draw(data: bytes, environment: Mapping[str, str]) -> str:
    """Return what shows the image in the terminal that the environment tells of; empty where none can."""
    if "KITTY_WINDOW_ID" in environment or environment.get("TERM") == "xterm-kitty":
        return _kitty(thumbnail(data, SIDE_IN_TERMINAL))
    if environment.get("TERM_PROGRAM") in ITERM:
        return _iterm(thumbnail(data, SIDE_IN_TERMINAL))
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return "\n".join(_blocks(thumbnail(data, SIDE_IN_BLOCKS)))
    return ""


def _kitty(small: bytes) -> str:
    if not small:
        return ""
    from PIL import Image  # noqa: PLC0415

    with Image.open(io.BytesIO(small)) as opened:
        written = io.BytesIO()
        opened.save(written, "PNG")
    text = base64.b64encode(written.getvalue()).decode("ascii")
    chunks = [text[at : at + KITTY_CHUNK] for at in range(0, len(text), KITTY_CHUNK)]
    last = len(chunks) - 1
    head = "a=T,f=100,"
    return "".join(
        f"\033_G{head if not number else ''}m={int(number < last)};{chunk}\033\\" for number, chunk in enumerate(chunks)
    )


def _iterm(small: bytes) -> str:
    if not small:
        return ""
    text = base64.b64encode(small).decode("ascii")
    return f"\033]1337;File=inline=1;size={len(small)}:{text}\a"


def _blocks(small: bytes) -> Iterator[str]:
    """Yield lines of half blocks: the upper pixel is the colour of the letter, the lower one that of its background."""
    if not small:
        return
    from PIL import Image  # noqa: PLC0415

    with Image.open(io.BytesIO(small)) as opened:
        picture = opened.convert("RGB")
    wide, high = picture.size
    pixels = picture.tobytes()

    def colour(column: int, row: int) -> str:
        at = (min(row, high - 1) * wide + column) * 3
        return ";".join(str(part) for part in pixels[at : at + 3])

    for row in range(0, high, 2):
        cells = (f"\033[38;2;{colour(at, row)};48;2;{colour(at, row + 1)}m▀" for at in range(wide))
        yield "".join(cells) + "\033[0m"
