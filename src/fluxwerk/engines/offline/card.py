"""The reference images, shown as framed and numbered cards on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageFilter

from fluxwerk.engines.codec import decode
from fluxwerk.engines.offline.brush import scaled
from fluxwerk.engines.offline.label import letters
from fluxwerk.imagefile import measure

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME = (250, 248, 243)
INK = (70, 66, 72)
# The share of the image's width and height that cards may take, and the height at which they begin.
ACROSS, DOWN, TOP = 0.92, 0.72, 0.14
LETTER = 11


def show(image: Image.Image, references: Sequence[bytes]) -> None:
    """Place the references on the image, in rows from left to right, each with its number.

    They are measured first and decoded one after the other, so that eight large ones need no more memory than one.
    """
    if not references:
        return
    columns, rows = _grid(image, [_upright(data) for data in references])
    wide, high = int(image.width * ACROSS) // columns, int(image.height * DOWN) // rows
    for index, data in enumerate(references):
        row, column = divmod(index, columns)
        in_row = min(columns, len(references) - row * columns)
        middle = image.width // 2 + (2 * column + 1 - in_row) * wide // 2
        centre = (middle, int(image.height * TOP) + row * high + high // 2)
        _lay(image, decode(data), index + 1, centre, (wide, high))


def _upright(data: bytes) -> tuple[int, int]:
    raster = measure(data)
    return raster.upright if raster else (1, 1)


def _grid(image: Image.Image, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return columns and rows for which the smallest card is largest."""
    count = len(sizes)

    def worst(columns: int) -> float:
        rows = -(-count // columns)
        across, down = image.width * ACROSS / columns, image.height * DOWN / rows
        return min(min(across / wide, down / high) ** 2 * wide * high for wide, high in sizes)

    columns = max(range(1, count + 1), key=worst)
    return columns, -(-count // columns)


def _lay(
    image: Image.Image, reference: Image.Image, number: int, centre: tuple[int, int], cell: tuple[int, int]
) -> None:
    gap, edge = max(1, min(cell) // 16), max(2, min(cell) // 28)
    scale = max(1, min(cell) // 110)
    foot = max(edge, (LETTER + 2) * scale)
    room = (max(1, cell[0] - 2 * gap - 2 * edge), max(1, cell[1] - 2 * gap - edge - foot))
    shrink = min(room[0] / reference.width, room[1] / reference.height)
    size = (max(1, int(reference.width * shrink)), max(1, int(reference.height * shrink)))
    card = Image.new("RGB", (size[0] + 2 * edge, size[1] + edge + foot), FRAME)
    shown = scaled(reference, size)
    card.paste(shown, (edge, edge), shown if shown.mode == "RGBA" else None)
    word = letters(str(number), scale)
    card.paste(INK, ((card.width - word.width) // 2, edge + size[1] + (foot - word.height) // 2), word)
    corner = (centre[0] - card.width // 2, centre[1] - card.height // 2)
    _raise(image, card.size, corner, max(2, gap))
    image.paste(card, corner)


def _raise(image: Image.Image, size: tuple[int, int], corner: tuple[int, int], reach: int) -> None:
    """Darken softly around a card, more below than above."""
    mask = Image.new("L", (size[0] + 4 * reach, size[1] + 4 * reach))
    mask.paste(130, (2 * reach, 2 * reach, 2 * reach + size[0], 2 * reach + size[1]))
    soft = mask.filter(ImageFilter.BoxBlur(reach // 2)).filter(ImageFilter.BoxBlur(reach // 2))
    image.paste((8, 8, 20), (corner[0] - 2 * reach, corner[1] - 2 * reach + reach // 2), soft)
