"""The MCP server over stdio or streamable HTTP."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import MCPServer
from mcp.types import ToolAnnotations
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fluxwerk.mcp import tools
from fluxwerk.mcp.maker import ImageMaker
from fluxwerk.version import VERSION

INSTRUCTIONS = """\
Makes images with FLUX and saves them as files. `price` quotes, `models` lists, `lint` advises; these spend nothing.
`generate`, `edit` and `fill` spend credits (1 credit is 1 US cent) within the person's caps, and answer with paths.
If an answer was lost, repeat the same call: it finds the same images. To be certain, give each call a request_id."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ASKS = ToolAnnotations(read_only_hint=True, open_world_hint=True)
SPENDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
TOOLS: tuple[tuple[str, Callable[..., Awaitable[Any]], ToolAnnotations], ...] = (
    ("generate", tools.generate, SPENDS),
    ("edit", tools.edit, SPENDS),
    ("fill", tools.fill, SPENDS),
    ("price", tools.price, READS),
    ("credits", tools.credits_left, ASKS),
    ("models", tools.models, READS),
    ("history", tools.history, READS),
    ("image", tools.image, READS),
    ("lint", tools.lint, READS),
)


def build(maker: ImageMaker) -> MCPServer[ImageMaker]:
    """Build the server whose tools use a maker; the maker works for as long as the server runs."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[ImageMaker]) -> AsyncGenerator[ImageMaker]:
        async with maker.open():
            yield maker

    server = MCPServer(
        "fluxwerk",
        title="fluxwerk",
        version=VERSION,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        log_level="WARNING",
        subscriptions=False,
    )
    for name, function, hints in TOOLS:
        server.add_tool(function, name=name, annotations=hints)
    return server


class TokenCheck:
    """Wraps an ASGI application: answers only requests with a bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without the token, or hand it on."""
        if scope["type"] == "http":
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token):
                refusal = PlainTextResponse("Send the token of FLUXWERK_MCP_TOKEN as Authorization: Bearer.", 401)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
