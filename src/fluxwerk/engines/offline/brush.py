"""Drawing tools of the scenes: gradients, outlines, discs, glows and soft shadows.

Only + - * / on numbers and Pillow's integer drawing, so that no machine rounds a pixel differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fluxwerk.engines.offline.palette import Colour, Palette

Point: TypeAlias = tuple[float, float]
Curve: TypeAlias = Callable[[float], float]

# Ordered dither, row by row: it hides the bands of a slow gradient, and a PNG of it stays small.
DITHER = (
    (0.03125, 0.53125, 0.15625, 0.65625),
    (0.78125, 0.28125, 0.90625, 0.40625),
    (0.21875, 0.71875, 0.09375, 0.59375),
    (0.96875, 0.46875, 0.84375, 0.34375),
)
KNOTS = 64
STEP = 4


@dataclass(slots=True)
class Surface:
    """The image that is being drawn, its palette, and its source of random numbers."""

    image: Image.Image
    palette: Palette
    chance: Random

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.image.height

    @property
    def side(self) -> int:
        """The shorter side in pixels; shapes are sized by it."""
        return min(self.image.size)

    def between(self, low: float, high: float) -> float:
        """Return a random number from `low` to `high`."""
        return low + (high - low) * self.chance.random()


def shade(size: tuple[int, int], stops: Sequence[Colour]) -> Image.Image:
    """Return a gradient from top to bottom, dithered; one stop gives that colour exactly."""
    width, height = size
    if len(stops) == 1:
        return Image.new("RGB", size, stops[0])
    rows: list[bytes] = []
    for y in range(height):
        place = y * (len(stops) - 1) / height
        index = int(place)
        share = place - index
        (r0, g0, b0), (r1, g1, b1) = stops[index], stops[index + 1]
        red, green, blue = r0 + (r1 - r0) * share, g0 + (g1 - g0) * share, b0 + (b1 - b0) * share
        # Spelt out, since this runs for each row of each gradient.
        p, q, r, s = DITHER[y & 3]
        rows.append(
            bytes(
                (
                    int(red + p), int(green + p), int(blue + p), int(red + q), int(green + q), int(blue + q),
                    int(red + r), int(green + r), int(blue + r), int(red + s), int(green + s), int(blue + s),
                )
            )
        )  # fmt: skip
    image, done = Image.new("RGB", size), len(DITHER[0])
    image.paste(Image.frombytes("RGB", (done, height), b"".join(rows)))
    while done < width:
        # What is there already is copied beside itself: the dither repeats, and Pillow copies fastest.
        image.paste(image.crop((0, 0, min(done, width - done), height)), (done, 0))
        done *= 2
    return image


def mesh(size: tuple[int, int], rows: Sequence[Sequence[Colour]]) -> Image.Image:
    """Return a gradient between colours in both directions."""
    grid = Image.frombytes("RGB", (len(rows[0]), len(rows)), bytes(level for row in rows for c in row for level in c))
    bicubic = Image.Resampling.BICUBIC
    return grid.resize(size, bicubic)  # pyright: ignore[reportUnknownMemberType] - Pillow's stub


def lay(
    sheet: Surface,
    outline: Sequence[Point],
    fill: Sequence[Colour],
    *,
    shadow: float = 0.0,
    rim: Colour | None = None,
) -> None:
    """Paint all that lies below the outline (pixels, left to right), with a shadow on what is behind it."""
    high, low = min(y for _, y in outline), max(y for _, y in outline)
    reach = reach_of(sheet) if shadow else 0
    top = min(max(int(high) - 3 * reach, 0), sheet.height - 1)
    bottom = min(max(int(low) + 4, top + 1), sheet.height)
    floor = [(sheet.width + STEP, sheet.height + STEP), (-STEP, sheet.height + STEP)]
    mask = cut((sheet.width, bottom - top), [(x, y - top) for x, y in [*outline, *floor]])
    if shadow:
        cast_shadow(sheet, sheet.image, top, mask, shadow)
    if rim is not None:
        sheet.image.paste(rim, (0, top), mask)
        mask = ImageChops.offset(mask, 0, lip := max(1, sheet.side // 300))
        mask.paste(0, (0, 0, sheet.width, lip))
    paint = shade((sheet.width, sheet.height - top), fill)
    # Only the strip that the outline crosses needs the mask, which is the slow part.
    sheet.image.paste(paint.crop((0, 0, *mask.size)), (0, top), mask)
    sheet.image.paste(paint.crop((0, bottom - top, *paint.size)), (0, bottom))


def cut(size: tuple[int, int], ring: Sequence[Point]) -> Image.Image:
    """Return a mask of what the ring encloses, with smooth edges."""
    mask = Image.new("L", (size[0] * 2, size[1] * 2))
    ImageDraw.Draw(mask).polygon([(int(2 * x), int(2 * y)) for x, y in ring], fill=255)
    return mask.reduce(2)


def reach_of(sheet: Surface) -> int:
    """Return the reach of a shadow in pixels."""
    return max(2, sheet.side // 80)


def cast_shadow(
    sheet: Surface, ground: Image.Image, top: int, mask: Image.Image, strength: float, drop: int = 0
) -> None:
    """Darken the ground from `top` on around what the mask marks, `drop` pixels lower."""
    reach = reach_of(sheet)
    coarse = max(1, min(8, reach // 2))
    blur = ImageFilter.BoxBlur(max(1, (reach + coarse // 2) // coarse // 2))
    small = mask.reduce(coarse).filter(blur).filter(blur)
    faint = curved(small, [int(level * strength) for level in range(256)])
    soft = scaled(faint, mask.size, (0, 0, mask.width / coarse, mask.height / coarse))
    tone = shadow_tone(sheet)
    ground.paste(tone, (0, top + drop), soft)
    if drop:
        ground.paste(tone, (0, top), scaled(soft.crop((0, 0, mask.width, 1)), (mask.width, drop)))


def scaled(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Return the image, or what lies in its box, in another size."""
    bilinear = Image.Resampling.BILINEAR
    return image.resize(size, bilinear, box)  # pyright: ignore[reportUnknownMemberType] - Pillow's stub


def curved(mask: Image.Image, levels: Sequence[int]) -> Image.Image:
    """Return the mask with each of its 256 levels replaced."""
    return mask.point(levels)  # pyright: ignore[reportUnknownMemberType] - Pillow's stub


def shadow_tone(sheet: Surface) -> Colour:
    """Return the colour of shadows: the palette's darkest, made darker; plain grey would look dirty."""
    red, green, blue = min(sheet.palette.land, key=sum)
    return red // 3, green // 3, blue // 3


def round_mask(diameter: int) -> Image.Image:
    """Return a disc with smooth edges."""
    mask = Image.new("L", (diameter * 4, diameter * 4))
    ImageDraw.Draw(mask).ellipse((0, 0, diameter * 4 - 1, diameter * 4 - 1), fill=255)
    return mask.reduce(4)


def disc(sheet: Surface, centre: Point, diameter: float, fill: Sequence[Colour], opacity: float = 1.0) -> None:
    """Paint a disc, shaded from top to bottom."""
    across = max(2, int(diameter))
    mask = round_mask(across)
    if opacity < 1:
        mask = curved(mask, [int(level * opacity) for level in range(256)])
    corner = (int(centre[0] - across / 2), int(centre[1] - across / 2))
    sheet.image.paste(shade((across, across), fill), corner, mask)


def glow(sheet: Surface, centre: Point, radius: float, colour: Colour, strength: float) -> None:
    """Paint a soft glow around a point."""
    across = max(2, int(2 * radius))
    # Pillow's radial gradient has this level where the circle touches the square; beyond it nothing shines.
    rim = 180
    falls = [max(0, rim - level) for level in range(256)]
    curve = [int(255 * strength * fall * fall / rim / rim + 0.5) for fall in falls]
    mask = scaled(curved(Image.radial_gradient("L"), curve), (across, across))
    left, top = int(centre[0] - radius), int(centre[1] - radius)
    sheet.image.paste(colour, (left, top), mask)


def wander(chance: Random, octaves: int, *, smooth: bool) -> Curve:
    """Return a curve that wanders between 0 and 1, angular unless `smooth`."""
    tables = [[chance.random() for _ in range(KNOTS)] for _ in range(octaves)]
    whole = sum(1 / (1 << octave) for octave in range(octaves))

    def at(x: float) -> float:
        total, weight = 0.0, 1.0 / whole
        for knots in tables:
            index = int(x)
            share = x - index
            if smooth:
                share = share * share * (3 - 2 * share)
            low = knots[index % KNOTS]
            total += weight * (low + (knots[(index + 1) % KNOTS] - low) * share)
            x, weight = x * 2, weight / 2
        return total

    return at


def swell(x: float) -> float:
    """Return a wave between 0 and 1 with period 1: as round as a sine, and the same on every machine."""
    share = x - int(x)
    share = 2 * share if share < 0.5 else 2 - 2 * share  # noqa: PLR2004 - half way up it turns
    return share * share * (3 - 2 * share)


def trace(sheet: Surface, curve: Curve) -> list[Point]:
    """Return the curve as an outline; it takes shares of the shorter side and gives shares of the height."""
    count = min(320, sheet.width // STEP) + 2
    step = (sheet.width + 2 * STEP) / (count - 1)
    places = [index * step - STEP for index in range(count)]
    return [(x, curve((x + STEP) / sheet.side) * sheet.height) for x in places]


def cusp(x: float) -> float:
    """Return a wave between 0 and 1 with period 1: flat in its trough, pointed at its crest."""
    share = 2 * (x - int(x)) - 1
    share = 1 + share if share < 0 else 1 - share
    return share * share


def nearest(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image in another size without any new colour."""
    method = Image.Resampling.NEAREST
    return image.resize(size, method)  # pyright: ignore[reportUnknownMemberType] - Pillow's stub
