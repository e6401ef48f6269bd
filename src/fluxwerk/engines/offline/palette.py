"""The palettes, and the words of a prompt that select one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from random import Random

Colour: TypeAlias = tuple[int, int, int]

MOST_NAMED = 5
NAMED = re.compile(r"#([0-9a-fA-F]{6})(?![0-9a-zA-Z])")
WHITE: Colour = (255, 255, 255)
DARK_SKY = 40

# mood: sky from the zenith to the horizon | sun or moon | land from far to near
LANDSCAPES = (
    ("sunset", "2b2a5a 7a3b74 e2696b ffb56b ffe3a3", "fff1c9", "d97a73 8e4a72 3f2b5c 1d1738"),
    ("sunset", "4f5f9e c08ab2 f7a98c ffd9a0", "fff4d6", "e59a8f a86487 5c4373 2a2449"),
    ("sunset", "41295a b0456e f5765b ffc15e", "fff0b8", "e0655c 8f3f63 4b2a57 201536"),
    ("dawn", "8fb8de c9d3ea f8dcd3 ffeccf", "fffaf0", "b6bfd9 8390b5 4f5f8c 26325a"),
    ("dawn", "6f7fb8 b9a9d0 f3c9c4 ffe9cc", "fff8e6", "b79fbe 8574a4 544d82 2a2a56"),
    ("day", "3f8fd0 8cc4ea d6eef5", "fffbe6", "a9cbd8 6aa0ad 36707c 17444f"),
    ("day", "5aa9d6 a9d8ea f3f3dc", "fffbe0", "a8cfc2 67a694 35776d 15474a"),
    ("night", "070b24 131a45 2b3a78 5566a5", "f6f1d8", "3d4c86 26316b 151c48 090d28"),
    ("night", "0a0820 231447 4a2a73 84519a", "ffeecf", "5e3d80 3c2763 221645 0f0a26"),
    ("night", "04121f 0b2b3c 135a5a 4fb08a", "e9fbe7", "1f6b68 124850 0a2c38 051620"),
    ("sea", "9fd3e6 d4eef0 fff3d9", "fff8e0", "7cc3cf 3a96b0 1b668f 0c3a63"),
    ("sea", "f2b98f f8d9b4 fff1dc", "ff8a63", "8cc8c0 3f9a9c 1c6d7d 0b3f55"),
    ("forest", "b9d0bd dfe8d0 f8f3da", "fffbe3", "a9c3a6 6f9a7e 3a6b57 16382f"),
    ("forest", "7fa8a3 bcd3bd f3e9c6", "fff6d2", "8fb39a 55877a 2b5a55 0f2f33"),
    ("autumn", "f0bd78 f8dca8 fdf1d8", "fff6dc", "d99a5b b5653a 7c3b2c 3d1f22"),
    ("desert", "e8a06c f6cb98 fdeacb", "fffaf0", "e3a06b c8764e 93493e 512a33"),
    ("desert", "6fa7b8 bfd3c8 fbe6c4", "fff9e8", "ecb87f d18a55 9c5740 5a3036"),
    ("winter", "a0b9d6 cfdcea f6f4f4", "ffffff", "c9d8e6 9db4cc 6684a8 34507a"),
    ("spring", "f3b6c6 fbdcdc fff5ec", "fffaf0", "e8a7b8 b97a9d 7a5585 453561"),
    ("lavender", "5f5aa8 a391d6 e0c9ea fbe9ee", "fff6e6", "a58cc9 7460a8 483f80 251f52"),
    ("dusk", "191a3e 4a2f6b a64d79 f08a6c", "ffd9a0", "7a4a83 4b3570 2b2353 141433"),
    ("dusk", "16213f 2f4a78 7d7fa8 f0a98a", "ffe2b0", "5f6a94 3c4973 222d52 101732"),
    ("ink", "e2dcd0 f0ebe1 faf7f0", "d8472f", "c3bfb8 8c8a89 4f5157 1f232b"),
)
# The ground comes first, then what lies on it.
ACCENTS = (
    "f2e8d5 e4572e 17a2a0 f5b81c 2e282a",
    "fdf0d5 c1121f 003049 669bbc f2a65a",
    "f4f1de e07a5f 3d405b 81b29a f2cc8f",
    "edf2f4 8d99ae 2b2d42 ef4d4f ffb703",
    "fefae0 7a8450 2f4023 dda15e bc6c25",
    "f7ede2 f5b5ac 6f9a93 f28482 f6bd60",
    "e9f5f5 98c1d9 3d5a80 ee6c4d 293241",
    "fff1e6 9fb4f0 5e60ce 48bfe3 f58fb0",
    "f6efe6 264653 2a9d8f e9c46a e76f51",
    "f3ecff b79ced 7161c4 2d2a5e ffa69e",
)
# The first row with a word of the prompt decides: a sea at sunset gets the colours of the sunset.
MOOD_WORDS = {
    "sunset": "sunset sundown evening fire flame volcano lava",
    "dawn": "dawn sunrise morning pastel misty fog foggy cloud",
    "dusk": "dusk twilight neon cyberpunk skyline tokyo",
    "night": "night midnight moon star galaxy space cosmic aurora astronaut planet nebula witch",
    "autumn": "autumn fall pumpkin harvest october",
    "winter": "winter snow snowy ice frost arctic glacier christmas polar penguin",
    "spring": "spring blossom cherry flower rose tulip petal wedding",
    "lavender": "lavender purple violet dream fantasy magic unicorn fairy",
    "desert": "desert dune sand sahara canyon camel mars egypt",
    "sea": "sea ocean wave beach coast island harbor harbour boat ship sail underwater fish whale surf",
    "forest": "forest tree wood jungle pine leaf leaves green garden plant moss fern",
    "ink": "ink japan japanese zen minimal minimalist monochrome calligraphy haiku",
    "day": "day noon summer sky blue bright meadow lake river hill valley water",
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours that go together; `named` are those that the prompt writes as #RRGGBB."""

    sky: tuple[Colour, ...]
    light: Colour
    land: tuple[Colour, ...]
    accents: tuple[Colour, ...]
    named: tuple[Colour, ...] = ()

    @property
    def is_dark(self) -> bool:
        """Whether stars would be seen in this sky."""
        red, green, blue = self.sky[0]
        return (3 * red + 6 * green + blue) / 10 < DARK_SKY


def words(prompt: str) -> frozenset[str]:
    """Return the prompt's words in lower case, each also without a plural's s."""
    found = re.findall(r"[a-z]+", prompt.lower())
    return frozenset(found) | {word.removesuffix("s") for word in found}


def lean(prompt: str, table: dict[str, str]) -> str | None:
    """Return the first row of the table that has a word of the prompt, or `None` if no row has one."""
    said = words(prompt)
    return next((name for name, known in table.items() if said & set(known.split())), None)


def named_colours(prompt: str) -> tuple[Colour, ...]:
    """Return the first few different colours that the prompt writes as #RRGGBB."""
    found = (colour(digits) for digits in NAMED.findall(prompt))
    return tuple(dict.fromkeys(found))[:MOST_NAMED]


def choose(prompt: str, chance: Random) -> Palette:
    """Pick the colours: by the prompt's numbers and words first, by chance among what is left."""
    mood = lean(prompt, MOOD_WORDS)
    row = chance.choice([row for row in LANDSCAPES if mood in {None, row[0]}])
    sky, light, land = colours(row[1]), colour(row[2]), colours(row[3])
    accents = colours(chance.choice(ACCENTS))
    if mood is not None:
        accents = (sky[-1], land[1], light, land[0], land[2], sky[len(sky) // 2])
    named = named_colours(prompt)
    if named:
        sky = (mix(named[0], WHITE, 0.55), mix(named[-1], WHITE, 0.82), mix(named[-1], WHITE, 0.92))
        light, land, accents = mix(named[0], WHITE, 0.95), named, named
    return Palette(sky, light, land, accents, named)


def colour(digits: str) -> Colour:
    """Read six hexadecimal digits."""
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def colours(digits: str) -> tuple[Colour, ...]:
    """Read colours with blanks between them."""
    return tuple(colour(each) for each in digits.split())


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return a colour between the two, `share` of the way to the other."""
    red, green, blue = (int(a + (b - a) * share + 0.5) for a, b in zip(one, other, strict=True))
    return red, green, blue


def along(stops: tuple[Colour, ...], place: float) -> Colour:
    """Return the colour at a place between 0, the first stop, and 1, the last."""
    if len(stops) == 1:
        return stops[0]
    scaled = min(max(place, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(scaled), len(stops) - 2)
    return mix(stops[index], stops[index + 1], scaled - index)
