"""From an order to an image file: random numbers from its hash, a scene, the reference cards, the label."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

from PIL import Image

from fluxwerk.engines.codec import encode
from fluxwerk.engines.offline import abstract, canvas, card, label, landscape
from fluxwerk.engines.offline.brush import Surface, nearest
from fluxwerk.engines.offline.palette import choose, lean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxwerk.engines import Order
    from fluxwerk.engines.offline.palette import Colour

SOFTWARE = "fluxwerk offline renderer"
SCENES = {
    "mountains": landscape.mountains,
    "lake": landscape.lake,
    "sea": landscape.sea,
    "dunes": landscape.dunes,
    "forest": landscape.forest,
    "city": landscape.city,
    "discs": abstract.discs,
    "ribbons": abstract.ribbons,
    "paper": abstract.paper,
    "tiles": abstract.tiles,
}
# The first row with a word of the prompt decides: mountains by a lake make a lake.
SCENE_WORDS = {
    "lake": "lake pond reflection fjord mirror river",
    "sea": "sea ocean wave beach coast island boat ship sail surf harbor harbour",
    "dunes": "desert dune sand sahara mars camel",
    "mountains": "mountain alp peak summit hill landscape valley volcano glacier aurora himalaya",
    "forest": "forest tree wood jungle pine fir fox bear deer owl wolf christmas",
    "city": "city skyline street urban tokyo york building skyscraper tower cyberpunk neon",
    "paper": "paper cave cutout origami layer fairy dream magic flower garden rose",
    "ribbons": "ribbon flow silk music dance smoke wind fabric dress curve gradient",
    "tiles": "tile pattern bauhaus poster geometric mosaic logo retro icon",
    "discs": "disc circle bubble planet balloon ball galaxy abstract portrait face cat dog person woman man",
}
# Scenes for any prompt: a city for a prompt about a teapot would look like a mistake.
ANYTHING = ("mountains", "lake", "sea", "dunes", "discs", "ribbons", "paper", "tiles")
# Their colours blend, so that none of the named ones would be exact; the scene on the right shows them.
MELTING = {"discs": "tiles", "lake": "mountains"}
SAMPLE = 128
SEEN = 0.03


def render(order: Order) -> bytes:
    """Return the image file that the order asks for."""
    image = _image(order)
    return encode(image, order.output_format, SOFTWARE, f"model {order.model}, seed {order.seed}, not FLUX")


def _image(order: Order) -> Image.Image:
    size = (order.width, order.height)
    if order.canvas is None:
        image = _painting(order)
        label.write(image)
        return image
    base, free = canvas.place(order.canvas, size)
    if "deblur" in order.model and free.getbbox() is None:
        image = canvas.sharpen(base)
        label.write(image)
        return image
    if "erase" in order.model:
        image = canvas.inpaint(base, free)
    else:
        image = _painting(order)
        if order.canvas.mask is None:
            canvas.raise_source(image, free)
    label.write(image, free)
    return Image.composite(image, base, free)


def _painting(order: Order) -> Image.Image:
    """Return the scene with the reference cards on it."""
    chance = Random(_number(order))  # noqa: S311 - an image is not a secret
    palette = choose(order.prompt, chance)
    name = lean(order.prompt, SCENE_WORDS) or chance.choice(ANYTHING)
    if palette.named:
        name = MELTING.get(name, name)
    sheet = Surface(Image.new("RGB", (order.width, order.height)), palette, chance)
    SCENES[name](sheet)
    card.show(sheet.image, order.references)
    _add_hidden(sheet.image, palette.named)
    return sheet.image


def _number(order: Order) -> int:
    """Return the random seed; size, format and options stay out of it, so they do not change the motif."""
    digest = sha256()
    for part in _parts(order):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def _parts(order: Order) -> Iterator[bytes]:
    yield from (order.model.encode(), order.prompt.encode(errors="surrogatepass"), str(order.seed).encode())
    yield from order.references
    if order.canvas is not None:
        yield from (
            b"canvas",
            order.canvas.source,
            order.canvas.mask or b"",
            repr(order.canvas.offset).encode(),
        )


def _add_hidden(image: Image.Image, named: tuple[Colour, ...]) -> None:
    """Show each named colour that is hardly visible in a bar along the upper edge."""
    if not named:
        return
    sample = nearest(image, (SAMPLE, SAMPLE)).getcolors(SAMPLE * SAMPLE)
    seen = {shown: count for count, shown in sample or []}
    hidden = [tone for tone in named if seen.get(tone, 0) < SEEN * SAMPLE * SAMPLE]
    high = -(-image.height * len(hidden) * 5 // 200)
    for index, tone in enumerate(hidden):
        left, right = (image.width * edge // len(hidden) for edge in (index, index + 1))
        image.paste(tone, (left, 0, right, high))
