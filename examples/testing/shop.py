"""An application that makes pictures of products; the tests beside it need no key, no network and no money."""

from __future__ import annotations

from fluxwerk import Client, ModerationError


def picture(product: str) -> bytes | None:
    """Make a picture of a product, or nothing if moderation stops it."""
    with Client() as client:
        try:
            return client.generate(f"A studio photo of {product}", model="flux-2-klein-4b", width=512, height=512).data
        except ModerationError:
            return None
