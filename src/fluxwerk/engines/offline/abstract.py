"""Scenes without a horizon: discs, ribbons, cut paper, tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw

from fluxwerk.engines.offline.brush import (
    Surface,
    cast_shadow,
    cut,
    disc,
    glow,
    lay,
    mesh,
    reach_of,
    round_mask,
    shade,
    swell,
    trace,
    wander,
)
from fluxwerk.engines.offline.palette import WHITE, along, mix

if TYPE_CHECKING:
    from fluxwerk.engines.offline.brush import Curve, Point
    from fluxwerk.engines.offline.palette import Colour

ROUND = 180
MOTIFS = 6


def discs(sheet: Surface) -> None:
    """Soft discs of light, large and small, one over another."""
    accents = sheet.palette.accents
    _ground(sheet)
    count = 9
    order = sheet.chance.sample(range(count), count)
    for index in range(count):
        across = sheet.side * (sheet.between(0.34, 0.62) if index < 4 else sheet.between(0.06, 0.24))  # noqa: PLR2004
        x = sheet.width * ((order[index] + 0.5) / count * 0.86 + 0.07)
        y = sheet.height * sheet.between(0.2, 0.8)
        tone = (accents[1:] or accents)[index % max(1, len(accents) - 1)]
        glow(sheet, (x, y + across * 0.08), across * 0.72, mix(tone, (0, 0, 0), 0.7), 0.32)
        disc(
            sheet,
            (x, y),
            across,
            (mix(tone, WHITE, 0.30), tone, mix(tone, accents[index % len(accents)], 0.4)),
            0.93,
        )


def ribbons(sheet: Surface) -> None:
    """Bands of paper across the image, each in the shadow of the next."""
    named, tones = sheet.palette.named, _spread(sheet)
    sheet.image.paste(shade(sheet.image.size, (mix(tones[0], WHITE, 0.5), tones[0])))
    count = max(8, len(named))
    fall = sheet.between(0.15, 0.4) * (1 if sheet.chance.random() < 0.5 else -1)  # noqa: PLR2004 - even odds
    start, drift = sheet.between(0, 1), wander(sheet.chance, 2, smooth=True)
    pace = sheet.between(0.55, 0.9)
    for index in range(count):
        base = -0.02 + 0.98 * index / count

        def curve(x: float, base: float = base, turn: float = index * 0.07) -> float:
            across = x * sheet.side / sheet.width
            wave = swell(x * pace + start + turn) - 0.5 + 0.5 * (drift(x * 1.3 + turn * 3) - 0.5)
            return base + 0.06 + fall * (across - 0.5) + 0.17 * wave

        tone = tones[index % len(tones)]
        fill = (named[index % len(named)],) if named else (mix(tone, WHITE, 0.22), tone, mix(tone, tones[-1], 0.2))
        lay(sheet, trace(sheet, curve), fill, shadow=0.42)


def paper(sheet: Surface) -> None:
    """Sheets of paper with a hole cut into each, and light in the depth."""
    palette = sheet.palette
    centre = (sheet.width * sheet.between(0.42, 0.58), sheet.height * sheet.between(0.44, 0.56))
    count, reach = max(6, len(palette.named)), reach_of(sheet)
    corner, opening = (0, 0), Image.new("L", sheet.image.size, 255)
    for index in reversed(range(-1, count)):
        ground = _depth(sheet, index, count, opening.size)
        if index < 0:
            middle = (centre[0] - corner[0], centre[1] - corner[1])
            inner = Surface(ground, palette, sheet.chance)
            glow(inner, middle, sheet.side * 0.3, palette.light, 1.0)
            disc(inner, middle, sheet.side * 0.12, (WHITE, palette.light))
        if index < count - 1:
            cast_shadow(sheet, ground, 0, ImageChops.invert(opening), 0.6, drop=reach)
        # The first sheet has nothing above it, and a mask is the slow part.
        sheet.image.paste(ground, corner, opening if index < count - 1 else None)
        ring = _hole(sheet, centre, 0.15 + 0.055 * index + 0.004 * index * index)
        ring = [(x - corner[0], y - corner[1]) for x, y in ring]
        opening = ImageChops.darker(opening, cut(opening.size, ring))
        left, top, opening = _trimmed(opening, 3 * reach)
        corner = (corner[0] + left, corner[1] + top)


def tiles(sheet: Surface) -> None:
    """Quarters, halves and whole discs in a grid, as on a poster of the 1920s."""
    accents = sheet.palette.accents if len(sheet.palette.accents) > 1 else (*sheet.palette.accents, WHITE)
    cells = 4 + sheet.chance.getrandbits(1) * 2
    edge = -(-sheet.side // cells)
    columns, rows = -(-sheet.width // edge), -(-sheet.height // edge)
    left, top = (sheet.width - columns * edge) // 2, (sheet.height - rows * edge) // 2
    turn = sheet.chance.getrandbits(8)
    for row in range(rows):
        for column in range(columns):
            # Neighbours never share their ground, and every colour has its turn.
            ground = accents[(column + 2 * row + turn) % len(accents)]
            figure = sheet.chance.choice([tone for tone in accents if tone != ground])
            tile = _tile(sheet, edge, ground, figure, sheet.chance.choice(accents))
            sheet.image.paste(tile, (left + column * edge, top + row * edge))


def _ground(sheet: Surface) -> None:
    """Paint a gradient between colours of the palette."""
    first = sheet.palette.accents[0]
    others = sheet.palette.accents[1:] or (first,)
    rows = [[mix(first, sheet.chance.choice(others), sheet.between(0.0, 0.5)) for _ in range(3)] for _ in range(3)]
    sheet.image.paste(mesh(sheet.image.size, rows))


def _depth(sheet: Surface, index: int, count: int, size: tuple[int, int]) -> Image.Image:
    """Return a sheet of paper: the deeper it lies, the lighter it is."""
    palette = sheet.palette
    if index < 0:
        return shade(size, (mix(palette.sky[-1], palette.light, 0.5), palette.sky[-1]))
    if palette.named:
        return shade(size, (palette.named[index % len(palette.named)],))
    tone = along((palette.sky[-1], *palette.land), (index + 0.6) / count)
    return shade(size, (mix(tone, WHITE, 0.14), tone))


def _trimmed(mask: Image.Image, margin: int) -> tuple[int, int, Image.Image]:
    """Cut off what is empty but for a margin, and return how much went on the left and above."""
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    left, top = max(0, left - margin), max(0, top - margin)
    box = (left, top, min(mask.width, right + margin), min(mask.height, bottom + margin))
    return left, top, mask.crop(box)


def _spread(sheet: Surface) -> tuple[Colour, ...]:
    """Return the accents from light to dark, so that neighbours match."""
    ordered = tuple(sorted(sheet.palette.accents, key=sum, reverse=True))
    return tuple(along(ordered, index / 7) for index in range(8))


def _hole(sheet: Surface, centre: Point, reach: float) -> list[Point]:
    """Return a closed wavering line around the centre."""
    waver: Curve = wander(sheet.chance, 2, smooth=True)
    high, wide = sheet.height * reach, sheet.width * reach
    points: list[Point] = []
    for index in range(ROUND):
        quarter, share = divmod(index * 4 / ROUND, 1)
        # The unit circle by its rational form: no sine differs between two machines.
        x, y = (1 - share * share) / (1 + share * share), 2 * share / (1 + share * share)
        for _ in range(int(quarter)):
            x, y = -y, x
        # The line comes back to where it began, since the waver is read from the circle itself.
        far = 0.78 + 0.5 * waver(4 + 1.7 * x + 1.1 * y) * (0.6 + 0.4 * waver(20 + 2.2 * y))
        points.append((centre[0] + wide * x * far * 1.25, centre[1] + high * y * far * 1.25))
    return points


def _tile(sheet: Surface, edge: int, ground: Colour, figure: Colour, other: Colour) -> Image.Image:
    tile = Image.new("RGB", (edge, edge), ground)
    motif = sheet.chance.randrange(MOTIFS)
    if motif == 0:
        tile.paste(figure, (-edge, -edge), round_mask(2 * edge))
        tile.paste(other, (-edge // 2, -edge // 2), round_mask(edge))
    elif motif == 1:
        tile.paste(figure, (0, edge // 2), round_mask(edge))
        tile.paste(other, (edge // 4, edge - edge // 4), round_mask(edge // 2))
    elif motif == 2:  # noqa: PLR2004 - the motifs are numbered
        tile.paste(figure, (edge // 8, edge // 8), round_mask(edge - edge // 4))
        tile.paste(ground, (edge * 3 // 8, edge * 3 // 8), round_mask(edge // 4))
    elif motif == 3:  # noqa: PLR2004
        leaf = Image.new("RGB", (edge, edge), ground)
        leaf.paste(figure, (-edge, -edge), round_mask(2 * edge))
        tile.paste(leaf, (0, 0), round_mask(2 * edge).crop((0, 0, edge, edge)))
    elif motif == 4:  # noqa: PLR2004
        ImageDraw.Draw(tile).polygon([(0, 0), (edge, edge), (0, edge)], fill=figure)
    else:
        tile.paste(figure, (-edge, -edge), round_mask(2 * edge))
    return tile.rotate(90 * sheet.chance.getrandbits(2))
