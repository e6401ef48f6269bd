"""The result: the bytes of an image, and the task, seed, cost and prompt they come from."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from fluxwerk import imagefile, storage
from fluxwerk.types import Status, Task

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


@dataclass(frozen=True, slots=True)
class Image:
    """An image and its origin: size in pixels, `cost` in credits as settled by the service.

    Only a fluxwerk server names its `engine`: "offline" marks a rendering that was not made by a FLUX model.
    """

    data: bytes = field(repr=False)
    content_type: str
    width: int
    height: int
    task: Task
    seed: int | None = None
    cost: Decimal | None = None
    prompt: str | None = field(default=None, repr=False)
    engine: str | None = None

    @property
    def model(self) -> str:
        """The name of the model that the request went to."""
        return self.task.model

    @property
    def suffix(self) -> str:
        """The usual ending of a file of this type, without a dot."""
        return imagefile.SUFFIX[self.content_type]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
        """Write the bytes as they came, whole or not at all, and return the path.

        Raises `FileExistsError` if the name is taken and `overwrite` is false.
        """
        return storage.save(self.data, path, overwrite=overwrite)

    def to_pil(self) -> PilImage:
        """Decode into a Pillow image; needs the package pillow."""
        from PIL import Image as Pil  # noqa: PLC0415  (heavy, and needed only here)

        opened = Pil.open(io.BytesIO(self.data))
        opened.load()
        return opened

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return the image for a notebook."""
        text = base64.b64encode(self.data).decode("ascii")
        html = f'<img src="data:{self.content_type};base64,{text}" width="{min(self.width, 512)}">'
        return {self.content_type: text, "text/html": html, "text/plain": repr(self)}


def develop(status: Status, data: bytes) -> Image:
    """Build an image from a finished download and its status."""
    found = imagefile.measure(data)
    assert found is not None, "a download is measured before it counts"
    return Image(
        data=data,
        content_type=found.content_type,
        width=found.width,
        height=found.height,
        task=status.task,
        seed=status.seed,
        cost=status.cost if status.cost is not None else status.task.cost,
        prompt=status.prompt,
        engine=status.engine,
    )
