"""Many images on one sheet in a notebook, live while they are made, with progress and cost."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from decimal import Decimal
from html import escape
from importlib import import_module
from typing import Any, Self

from fluxwerk.client.image import Image
from fluxwerk.client.many import Result
from fluxwerk.client.thumbnail import thumbnail
from fluxwerk.types import Request

# In pixels, and how many letters of a prompt stand below a copy.
SIDE_ON_SHEET, LONGEST_CAPTION = 224, 120


class Gallery(Iterator[Result]):
    """Results of many requests: an iterator, and in a notebook a sheet that grows while they are made.

    `client.generate_many` returns one, and `Gallery(images)` shows images that are there.  As the last line of a cell
    it makes the images and keeps them in `results`; a loop over it keeps nothing, so that there may be endlessly many.
    `count` is how many there will be, `None` if that is not known.
    """

    def __init__(self, results: Iterable[Result | Image], count: int | None = None) -> None:
        self.results: list[Result] = []
        self._source = results
        self._coming = iter(results)
        self._count = count if count is not None else len(results) if isinstance(results, list | tuple) else None
        self._lost = 0

    def __next__(self) -> Result:
        one = next(self._coming)
        return Result(one.prompt or "", one) if isinstance(one, Image) else one

    def __iter__(self) -> Self:
        return self

    def close(self) -> None:
        """Make nothing more; what is in flight finishes unseen."""
        # Only a generator has something to stop.
        close: Any = getattr(self._source, "close", None)
        if close:
            close()

    @property
    def images(self) -> list[Image]:
        """The images on the sheet, in the order in which they were finished."""
        return [result.image for result in self.results if result.image]

    def _ipython_display_(self) -> None:
        """Show the sheet, and let it grow with each result; an interrupt stops the making."""
        display: Any = import_module("IPython.display")
        handle = display.display(display.HTML(self._repr_html_()), display_id=True)
        try:
            for result in self:
                self.results.append(result)
                if handle is not None:
                    handle.update(display.HTML(self._repr_html_()))
        except KeyboardInterrupt:
            self.close()
            raise

    def _repr_html_(self) -> str:
        figures = "".join(_figure(result) for result in self.results)
        grid = f"display:grid;grid-template-columns:repeat(auto-fill,minmax({SIDE_ON_SHEET}px,1fr));gap:12px"
        return f'<p>{escape(self._summary())}</p><div style="{grid}">{figures}</div>'

    def _summary(self) -> str:
        made, failed = len(self.images), len(self.results) - len(self.images)
        costs = [image.cost for image in self.images if image.cost is not None]
        paid = not all(image.engine in ("offline", "blank") for image in self.images)
        of = "" if self._count is None else f" of {self._count}"
        parts = [f"{made}{of} images"]
        parts += [f"{failed} failed"] if failed else []
        if costs:
            total = f"{sum(costs, Decimal(0)).normalize():f} credits"
            parts.append(total if paid else f"{total} on paper; an offline rendering costs nothing")
        return ", ".join(parts)


def _figure(result: Result) -> str:
    prompt = str(result.request.fields.get("prompt", "") if isinstance(result.request, Request) else result.request)
    caption = prompt if len(prompt) <= LONGEST_CAPTION else f"{prompt[: LONGEST_CAPTION - 1]}…"
    if result.image is None:
        told = f"<b>{escape(str(result.error))}</b><figcaption>{escape(caption)}</figcaption>"
        return f'<figure style="margin:0">{told}</figure>'
    image = result.image
    small = thumbnail(image.data, SIDE_ON_SHEET)
    kind, data = ("image/jpeg", small) if small else (image.content_type, image.data)
    seed = "" if image.seed is None else f" · seed {image.seed}"
    maker = "" if image.engine is None else f" · {image.engine} engine"
    return (
        f'<figure style="margin:0"><img alt="" width="{SIDE_ON_SHEET}" src="data:{kind};base64,'
        f'{base64.b64encode(data).decode("ascii")}"><figcaption>{escape(caption)}<br>'
        f"<small>{escape(image.model + seed + maker)}</small></figcaption></figure>"
    )
