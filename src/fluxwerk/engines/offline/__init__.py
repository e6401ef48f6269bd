"""The engine that needs no key, no network and no GPU: it draws an abstract image from the order itself.

The same order gives the same pixels on every machine. Pillow is loaded by the first rendering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxwerk.engines import Order

__all__ = ["OfflineEngine"]


class OfflineEngine:
    """Renders deterministically; safe to use from many threads, since it holds no state between orders."""

    name = "offline"

    def render(self, order: Order) -> bytes:
        """Return the image file; raises `ValueError` for a reference, source or mask that cannot be decoded."""
        from fluxwerk.engines.offline.scene import render  # noqa: PLC0415 - loads Pillow

        return render(order)
