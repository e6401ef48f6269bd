"""Scenes with a horizon: mountains, a lake, the sea, dunes, a forest, a city."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from fluxwerk.engines.offline.brush import (
    Surface,
    curved,
    cusp,
    disc,
    glow,
    lay,
    round_mask,
    scaled,
    shade,
    trace,
    wander,
)
from fluxwerk.engines.offline.palette import WHITE, along, mix

if TYPE_CHECKING:
    from fluxwerk.engines.offline.brush import Curve, Point
    from fluxwerk.engines.offline.palette import Colour

STARS = 170


def mountains(sheet: Surface) -> None:
    """Ridge behind ridge, with mist in the valleys."""
    horizon = sheet.between(0.34, 0.42)
    _sky(sheet, horizon + 0.14)
    count = max(5, len(sheet.palette.named))
    for index in range(count):
        near = index / (count - 1)
        base = horizon + 0.16 + (0.80 - horizon) * near
        peak = sheet.between(0.26, 0.34) * (1 - 0.55 * near)
        lay(sheet, trace(sheet, _crest(sheet, base, peak, 2.1 + near)), _ground(sheet, index, count))


def lake(sheet: Surface) -> None:
    """Mountains, and their reflection in still water."""
    shore = int(sheet.height * sheet.between(0.60, 0.66))
    upper = Surface(Image.new("RGB", (sheet.width, shore)), sheet.palette, sheet.chance)
    mountains(upper)
    sheet.image.paste(upper.image)
    depth = sheet.height - shore
    water = scaled(upper.image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (sheet.width, depth))
    lower, upper_tone = sheet.palette.land[-1], sheet.palette.sky[-1]
    water = Image.blend(water, shade(water.size, (mix(upper_tone, lower, 0.3), lower)), 0.38)
    row, drift = 0, wander(sheet.chance, 3, smooth=True)
    while row < depth:
        # Ripples grow towards the viewer.
        thick = 1 + row * 6 // depth * sheet.side // 700
        shift = int((drift(row * 90 / sheet.height) - 0.5) * sheet.side * (0.01 + 0.05 * row / depth))
        strip = water.crop((0, row, sheet.width, row + thick))
        for left in (shift, shift - sheet.width, shift + sheet.width):
            sheet.image.paste(strip, (left, shore + row))
        row += thick


def sea(sheet: Surface) -> None:
    """Waves under a low sun."""
    horizon = sheet.between(0.38, 0.48)
    sun = _sky(sheet, horizon, low=True)
    count = max(7, len(sheet.palette.named))
    for index in range(count):
        near = index / (count - 1)
        base = horizon + (0.90 - horizon) * near * (0.55 + 0.45 * near)
        tone = _ground(sheet, index, count, mist=0.0)
        rim = None if sheet.palette.named else mix(tone[0], sheet.palette.light, 0.55)
        curve = _swell(sheet, base, 0.085 * near, 7.5 - 5 * near)
        lay(sheet, trace(sheet, curve), tone, rim=rim if index else None, shadow=0.2 * near)
        if index < count - 1 and not sheet.palette.named:
            _glitter(sheet, sun[0], base, 0.3 + 0.7 * near)


def dunes(sheet: Surface) -> None:
    """Long soft hills of sand, each with a crest of light."""
    horizon = sheet.between(0.40, 0.48)
    _sky(sheet, horizon + 0.1)
    count = max(5, len(sheet.palette.named))
    for index in range(count):
        near = index / (count - 1)
        base = horizon + 0.12 + (0.74 - horizon) * near
        slope = (sheet.between(0.06, 0.14) if index % 2 else sheet.between(-0.14, -0.06)) * (0.5 + near)
        roll = wander(sheet.chance, 2, smooth=True)

        def curve(x: float, base: float = base, slope: float = slope, roll: Curve = roll) -> float:
            return base + slope * (x * sheet.side / sheet.width - 0.5) + 0.22 * (roll(x * 1.3) - 0.5)

        tone = _ground(sheet, index, count, mist=0.35)
        rim = None if sheet.palette.named else mix(tone[0], sheet.palette.light, 0.45)
        lay(sheet, trace(sheet, curve), tone, rim=rim, shadow=0.22)


def forest(sheet: Surface) -> None:
    """Rows of firs that fade into the mist."""
    horizon = sheet.between(0.30, 0.38)
    _sky(sheet, horizon + 0.2)
    far = _crest(sheet, horizon + 0.22, 0.3, 1.6)
    lay(sheet, trace(sheet, far), _ground(sheet, 0, 6))
    count = max(6, len(sheet.palette.named))
    for index in range(1, count):
        near = index / (count - 1)
        hill = wander(sheet.chance, 2, smooth=True)
        base = horizon + 0.26 + (0.70 - horizon) * near
        outline: list[Point] = []
        x = -0.1
        while x * sheet.side < sheet.width * 1.05:
            tall = sheet.between(0.07, 0.13) * (0.55 + 1.5 * near)
            ground = base + 0.16 * (hill(x + 1) - 0.5)
            outline += _fir(sheet, x, ground, tall)
            x += tall * sheet.between(0.26, 0.42)
        lay(sheet, outline, _ground(sheet, index, count, mist=0.75))


def city(sheet: Surface) -> None:
    """Towers at dusk, with lights in their windows."""
    _sky(sheet, sheet.between(0.42, 0.52))
    count = max(4, len(sheet.palette.named))
    for index in range(count):
        near = index / (count - 1)
        towers = _towers(sheet, 0.46 + 0.30 * near, 0.34 - 0.10 * near, 0.05 + 0.05 * near)
        outline = [point for left, right, top in towers for point in ((left, top), (right, top))]
        lay(sheet, outline, _ground(sheet, index, count, mist=0.55))
        if index:
            _windows(sheet, towers, near)


def _sky(sheet: Surface, horizon: float, *, low: bool = False) -> Point:
    """Paint the sky, with stars if it is dark, and return the place of the sun or the moon."""
    palette, line = sheet.palette, max(4, int(sheet.height * (horizon + 0.1)))
    sheet.image.paste(shade((sheet.width, line), palette.sky))
    sheet.image.paste(palette.sky[-1], (0, line, sheet.width, sheet.height))
    if palette.is_dark:
        _stars(sheet, line)
    across = sheet.side * sheet.between(0.11, 0.17)
    where = (sheet.width * sheet.between(0.22, 0.78), sheet.height * horizon * sheet.between(0.45, 0.72))
    if low:
        where = (where[0], sheet.height * horizon - across * sheet.between(0.05, 0.5))
    glow(sheet, where, sheet.side * 0.55, palette.light, 0.75)
    disc(sheet, where, across, (palette.light, mix(palette.light, palette.sky[-1], 0.25)))
    return where


def _stars(sheet: Surface, line: int) -> None:
    for _ in range(STARS):
        x, y = sheet.between(0, 1) * sheet.width, sheet.between(0, 1) * sheet.between(0.2, 1) * line
        across = max(2, int(sheet.side * sheet.between(0.0008, 0.0045)))
        shine = sheet.between(0.25, 0.9) * (1 - 0.7 * y / line)
        mask = curved(round_mask(across), [int(level * shine) for level in range(256)])
        sheet.image.paste(WHITE, (int(x), int(y)), mask)


def _ground(sheet: Surface, index: int, count: int, mist: float = 0.5) -> tuple[Colour, ...]:
    """Return the shades of one layer: its own colour above, what is behind it shining through below."""
    named = sheet.palette.named
    if named:
        return (named[index % len(named)],)
    near = index / (count - 1)
    own = along(sheet.palette.land, near)
    behind = mix(sheet.palette.sky[-1], sheet.palette.land[0], 0.3)
    if mist:
        return own, mix(own, behind, mist * (1 - 0.75 * near)), mix(own, behind, mist * (1 - 0.8 * near))
    return mix(own, behind, 0.18), own, mix(own, sheet.palette.land[-1], 0.5)


def _crest(sheet: Surface, base: float, peak: float, pace: float) -> Curve:
    rough = wander(sheet.chance, 7, smooth=False)
    # On a tall image the peaks would become needles.
    peak = peak * min(1.0, 1.3 * sheet.width / sheet.height)

    def curve(x: float) -> float:
        rise = rough(x * pace)
        # Squared, peaks stand out above wide valleys.
        return base - peak * 2.1 * rise * rise

    return curve


def _swell(sheet: Surface, base: float, high: float, pace: float) -> Curve:
    start, drift = sheet.between(0, 1), wander(sheet.chance, 2, smooth=True)

    def curve(x: float) -> float:
        wave = cusp(x * pace + start + 0.5 * drift(x * 1.4))
        return base - high * (wave * (0.55 + 0.45 * drift(x * 1.9 + 9)) - 0.3)

    return curve


def _glitter(sheet: Surface, x: float, line: float, spread: float) -> None:
    """Draw the reflection of the sun on the water below it."""
    for _ in range(7):
        wide = max(4, int(sheet.side * sheet.between(0.015, 0.06) * (0.5 + spread)))
        high = max(2, int(sheet.side * 0.0045 * (0.5 + spread)))
        mask = Image.new("L", (wide * 2, high * 2))
        ImageDraw.Draw(mask).ellipse((0, 0, wide * 2 - 1, high * 2 - 1), fill=int(sheet.between(70, 190)))
        left = x + sheet.side * 0.12 * spread * (sheet.between(-1, 1) + sheet.between(-1, 1)) - wide / 2
        top = sheet.height * (line + sheet.between(0.0, 0.06) * spread + 0.012)
        sheet.image.paste(Image.new("RGB", (wide, high), sheet.palette.light), (int(left), int(top)), mask.reduce(2))


def _fir(sheet: Surface, x: float, ground: float, tall: float) -> list[Point]:
    """Return a fir's outline, from its foot on the left to its foot on the right."""
    boughs = 6
    half = tall * 0.21
    left: list[tuple[float, float]] = []
    for bough in range(boughs):
        down = 1 - bough / boughs
        left += [(-half * down, 1 - down), (-half * down * 0.55, 1 - down + 0.05)]
    shape = [*left, (0.0, 1.0), *[(-reach, up) for reach, up in reversed(left)]]
    foot = ground * sheet.height
    return [((x + reach) * sheet.side, foot - tall * up * sheet.side) for reach, up in shape]


def _towers(sheet: Surface, base: float, high: float, wide: float) -> list[tuple[int, int, int]]:
    """Return left, right and top of each tower, in pixels."""
    towers: list[tuple[int, int, int]] = []
    left = -int(sheet.side * wide * sheet.chance.random())
    while left < sheet.width:
        right = left + max(3, int(sheet.side * wide * sheet.between(0.6, 1.5)))
        rise = sheet.chance.random()
        top = int(sheet.height * (base + 0.04 - high * rise * rise))
        towers.append((left, right, top))
        if rise > 0.7:  # noqa: PLR2004 - only the tall ones carry a mast
            third, mast = (right - left) // 3, int(sheet.height * 0.03)
            towers[-1:] = [
                (left, left + third, top),
                (left + third, right - third, top - mast),
                (right - third, right, top),
            ]
        left = right
    return towers


def _windows(sheet: Surface, towers: list[tuple[int, int, int]], near: float) -> None:
    draw = ImageDraw.Draw(sheet.image)
    size = max(1, int(sheet.side * (0.003 + 0.004 * near)))
    warm = mix(sheet.palette.light, (255, 190, 90), 0.45)
    for left, right, top in towers:
        lit = sheet.between(0.08, 0.4)
        for x in range(left + 2 * size, right - 2 * size, 2 * size):
            for y in range(top + 3 * size, min(sheet.height, top + int(sheet.height * 0.34)), 3 * size):
                if sheet.chance.random() < lit:
                    tone = mix(warm, sheet.palette.land[-1], 0.1 + 0.5 * sheet.chance.random())
                    draw.rectangle((x, y, x + size - 1, y + 2 * size - 2 if size > 1 else y), fill=tone)
