"""The paths that are asked most, found in a dictionary: FastAPI tries its routes one after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectPaths:
    """Hands the requests of some paths, by their method, straight to what answers them, and all others on.

    FastAPI publishes these paths too, and answers them where it traces requests itself.
    """

    def __init__(
        self, app: ASGIApp, methods: Mapping[str, str], answer: Callable[[Request], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._methods = methods
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_direct = scope["type"] == "http" and self._methods.get(scope["path"]) == scope["method"]
        if not is_direct or "fastapi.telemetry" in scope:
            await self._app(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)
