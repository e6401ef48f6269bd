"""Incoming webhooks: `verify`, `read` and `sign` for any framework, and `Receiver`, a complete ASGI application."""

from __future__ import annotations

from fluxwerk.client.wakeup import Wakeup
from fluxwerk.protocol.webhook import SIGNATURE, read, sign, verify
from fluxwerk.webhook.receiver import Receiver

__all__ = ["SIGNATURE", "Receiver", "Wakeup", "read", "sign", "verify"]
