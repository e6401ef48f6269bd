"""Webhook signatures: the HMAC of the raw body under the secret that the submit brought."""

from __future__ import annotations

import hashlib
import hmac


def sign(body: bytes, secret: str) -> str:
    """Return the value of X-BFL-Signature for exactly these bytes."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
