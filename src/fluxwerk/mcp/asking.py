"""What is asked of the client before a tool runs: which folders it opens, and whether a cost is wanted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, ListRoots
from mcp.types import ListRootsResult
from pydantic import BaseModel, Field

from fluxwerk.mcp.maker import ImageMaker
from fluxwerk.mcp.wish import Wish


class Consent(BaseModel):
    """A person's word about a cost."""

    spend: bool = Field(description="Whether to spend these credits")


def maker_of(context: Context[Any, Any]) -> ImageMaker:
    """Return the maker of this server."""
    maker = context.request_context.lifespan_context
    assert isinstance(maker, ImageMaker)
    return maker


def list_roots(context: Context[Any, Any]) -> ListRoots | ListRootsResult:
    """Ask a client that has roots for them; another one opens no folder."""
    capabilities = context.client_capabilities
    if capabilities is None or capabilities.roots is None:
        return ListRootsResult(roots=[])
    return ListRoots()


def consent(context: Context[Any, Any], wish: Wish, confirm_cost: float | None) -> Elicit[Consent] | Consent:
    """Ask a person about a cost above the threshold; a client that cannot ask must repeat the call with the cost.

    Raises `ToolError` with the quote.
    """
    above = maker_of(context).caps.confirm_above
    if above is None or (wish.estimate is not None and wish.estimate <= above):
        return Consent(spend=True)
    quote = "an unknown number of" if wish.estimate is None else f"about {wish.estimate}"
    text = f"{wish.count} × {wish.model} costs {quote} credits"
    if confirm_cost is not None and wish.estimate is not None and Decimal(str(confirm_cost)) >= wish.estimate:
        return Consent(spend=True)
    if _can_ask(context):
        return Elicit(f"{text} (1 credit is 1 US cent). Spend them?", Consent)
    raise ToolError(
        f"{text}, and more than {above} needs a person's word. Nothing was spent. Ask the person; then call again with "
        f"confirm_cost={wish.estimate or 'the most that may be spent'}."
    )


def _can_ask(context: Context[Any, Any]) -> bool:
    capabilities = context.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
