"""The tools: make, edit and fill images, price them, look at models, credits and earlier images, and lint a prompt.

The functions' parameters and their descriptions are what assistants read; their annotations are read at run time.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.types import CallToolResult, ListRootsResult
from pydantic import Field

from fluxwerk import catalog
from fluxwerk.catalog import prices
from fluxwerk.catalog.sizes import SQUARE
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.errors import FluxwerkError, UnknownPriceError
from fluxwerk.ledger.job import Job
from fluxwerk.mcp import answer
from fluxwerk.mcp.asking import Consent, consent, list_roots, maker_of
from fluxwerk.mcp.files import folders_of, locate
from fluxwerk.mcp.wish import Wish, read_wish
from fluxwerk.prompt import lint as advise
from fluxwerk.types import Json

FILL = "flux-pro-1.0-fill"
STEPS: Mapping[str, float] = {"submitting": 0.2, "submitted": 0.4, "ready": 0.8, "saved": 1.0, "failed": 1.0}

Prompt = Annotated[str, Field(description="What to show, in prose: subject, action, style, place, light")]
ModelName = Annotated[str, Field(description="A name that the tool `models` lists")]
Count = Annotated[int, Field(ge=1, le=8, description="How many images")]
Size = Annotated[int | None, Field(ge=64, le=4096, description="In pixels")]
Ratio = Annotated[str | None, Field(description="Such as 16:9, for models that have no width and height")]
Seed = Annotated[int | None, Field(ge=0, description="The same seed and request make the same image")]
FileType = Annotated[Literal["png", "jpeg", "webp"] | None, Field(description="Type of the file")]
Options = Annotated[dict[str, Any] | None, Field(description="Further options of the model by name, such as steps")]
ImageText = Annotated[str, Field(description="Path in an allowed folder, or https URL")]
Confirm = Annotated[float | None, Field(description="The most credits that the person agreed to")]
RequestId = Annotated[
    str | None,
    Field(min_length=1, max_length=100, description="Repeat a call with the same id to get its images, paid once"),
]
Roots = Annotated[ListRootsResult, Resolve(list_roots)]


async def generate_wish(
    prompt: Prompt,
    model: ModelName,
    count: Count,
    width: Size,
    height: Size,
    aspect_ratio: Ratio,
    seed: Seed,
    output_format: FileType,
    options: Options,
) -> Wish:
    """Check and price what `generate` is asked for."""
    return _wish(
        options,
        prompt=prompt,
        model=model,
        count=count,
        width=width,
        height=height,
        aspect_ratio=aspect_ratio,
        seed=seed,
        output_format=output_format,
    )


async def edit_wish(
    ctx: Context[Any, Any],
    roots: Roots,
    prompt: Prompt,
    images: list[ImageText],
    model: ModelName,
    count: Count,
    width: Size,
    height: Size,
    seed: Seed,
    output_format: FileType,
    options: Options,
) -> Wish:
    """Check and price what `edit` is asked for."""
    found = [_located(ctx, roots, "images", image) for image in images]
    return _wish(
        options,
        prompt=prompt,
        images=found,
        model=model,
        count=count,
        width=width,
        height=height,
        seed=seed,
        output_format=output_format,
    )


async def fill_wish(
    ctx: Context[Any, Any],
    roots: Roots,
    prompt: Prompt,
    image: ImageText,
    mask: ImageText,
    count: Count,
    seed: Seed,
    output_format: FileType,
    options: Options,
) -> Wish:
    """Check and price what `fill` is asked for."""
    return _wish(
        options,
        prompt=prompt,
        image=_located(ctx, roots, "image", image),
        mask=_located(ctx, roots, "mask", mask),
        model=FILL,
        count=count,
        seed=seed,
        output_format=output_format,
    )


async def generate_consent(
    ctx: Context[Any, Any], wish: Annotated[Wish, Resolve(generate_wish)], confirm_cost: Confirm
) -> Elicit[Consent] | Consent:
    """Have the cost of `generate` confirmed."""
    return consent(ctx, wish, confirm_cost)


async def edit_consent(
    ctx: Context[Any, Any], wish: Annotated[Wish, Resolve(edit_wish)], confirm_cost: Confirm
) -> Elicit[Consent] | Consent:
    """Have the cost of `edit` confirmed."""
    return consent(ctx, wish, confirm_cost)


async def fill_consent(
    ctx: Context[Any, Any], wish: Annotated[Wish, Resolve(fill_wish)], confirm_cost: Confirm
) -> Elicit[Consent] | Consent:
    """Have the cost of `fill` confirmed."""
    return consent(ctx, wish, confirm_cost)


async def generate(
    ctx: Context[Any, Any],
    wish: Annotated[Wish, Resolve(generate_wish)],
    word: Annotated[ElicitationResult[Consent], Resolve(generate_consent)],
    prompt: Prompt,
    model: ModelName = DEFAULT_MODEL,
    count: Count = 1,
    width: Size = None,
    height: Size = None,
    aspect_ratio: Ratio = None,
    seed: Seed = None,
    output_format: FileType = None,
    options: Options = None,
    request_id: RequestId = None,
    confirm_cost: Confirm = None,
) -> CallToolResult:
    """Make images of a prompt; answers with their paths, thumbnails and cost."""
    return await _made(ctx, wish, word, request_id)


async def edit(
    ctx: Context[Any, Any],
    wish: Annotated[Wish, Resolve(edit_wish)],
    word: Annotated[ElicitationResult[Consent], Resolve(edit_consent)],
    prompt: Prompt,
    images: Annotated[list[ImageText], Field(min_length=1, max_length=10)],
    model: ModelName = DEFAULT_MODEL,
    count: Count = 1,
    width: Size = None,
    height: Size = None,
    seed: Seed = None,
    output_format: FileType = None,
    options: Options = None,
    request_id: RequestId = None,
    confirm_cost: Confirm = None,
) -> CallToolResult:
    """Make images of a prompt and images; say what to change and what stays."""
    return await _made(ctx, wish, word, request_id)


async def fill(
    ctx: Context[Any, Any],
    wish: Annotated[Wish, Resolve(fill_wish)],
    word: Annotated[ElicitationResult[Consent], Resolve(fill_consent)],
    prompt: Prompt,
    image: ImageText,
    mask: ImageText,
    count: Count = 1,
    seed: Seed = None,
    output_format: FileType = None,
    options: Options = None,
    request_id: RequestId = None,
    confirm_cost: Confirm = None,
) -> CallToolResult:
    """Paint inside the white part of a mask, which is as large as the image."""
    return await _made(ctx, wish, word, request_id)


async def price(
    ctx: Context[Any, Any],
    roots: Roots,
    model: ModelName = DEFAULT_MODEL,
    count: Count = 1,
    width: Size = None,
    height: Size = None,
    images: Annotated[list[ImageText] | None, Field(max_length=10)] = None,
    options: Options = None,
) -> CallToolResult:
    """Estimate what images cost in credits; 1 credit is 1 US cent. Spends nothing."""
    row = {"model": model, "count": count, "width": width, "height": height}
    asks_prompt = "prompt" in _model(model).options
    found = [_located(ctx, roots, "images", image) for image in images or []]
    wish = _wish(options, **row, images=found, prompt="x" if asks_prompt else None)
    cost = None if wish.estimate is None else float(wish.estimate)
    text = (
        "Its price is not public." if cost is None else f"About {cost:g} credits (an estimate); 1 credit is 1 US cent."
    )
    return answer.of_facts(text, {"model": wish.model, "count": wish.count, "credits": cost, "estimate": True})


async def credits_left(ctx: Context[Any, Any]) -> CallToolResult:
    """Ask for the account's balance, and say what this session has spent of its cap."""
    maker = maker_of(ctx)
    try:
        balance = await maker.client.credits()
    except FluxwerkError as error:
        raise ToolError(str(error)) from error
    caps = maker.caps
    structured = {
        "credits": float(balance),
        "session_spent": float(caps.spent),
        "session_cap": None if caps.session is None else float(caps.session),
        "day_cap": None if caps.day is None else float(caps.day),
    }
    return answer.of_facts(f"{balance} credits are left. {_spent(caps.spent, caps.session)}", structured)


async def models() -> CallToolResult:
    """List the models with what each is best for, its price and its options."""
    rows = [
        {
            "name": model.name,
            "best_for": model.best_for,
            "credits_for_one_megapixel": _first_price(model),
            "images": model.references,
            "options": [option.name for option in model.options.values() if not option.name.startswith("webhook")],
        }
        for model in catalog.list_models().values()
        if model.hosted
    ]
    lines = [f"{row['name']}: {row['best_for']}; {row['credits_for_one_megapixel'] or '?'} credits" for row in rows]
    return answer.of_facts("\n".join(lines), {"models": rows})


async def history(
    ctx: Context[Any, Any],
    most: Annotated[int, Field(ge=1, le=100)] = 10,
    model: Annotated[str | None, Field(description="Only images of this model")] = None,
) -> CallToolResult:
    """List the images that were made last, the newest first."""
    return answer.of_list(maker_of(ctx).latest(most, model))


async def image(
    ctx: Context[Any, Any], image: Annotated[int, Field(ge=1, description="Its number in `history`")]
) -> CallToolResult:
    """Show an earlier image: its path, a thumbnail and its cost."""
    maker = maker_of(ctx)
    try:
        row = maker.image(image)
    except FluxwerkError as error:
        raise ToolError(str(error)) from error
    return answer.of_images([row], maker.ledger_file, "Nothing was spent.")


async def lint(prompt: Prompt, model: ModelName = DEFAULT_MODEL) -> CallToolResult:
    """Give advice on a prompt for a model, with the mend where there is one. Spends nothing."""
    found = advise(prompt, _model(model).name)
    rows = [
        {"rule": one.rule, "message": one.message, "place": one.quote(prompt) or None, "mend": one.mend}
        for one in found
    ]
    lines = [f"{row['rule']}: {row['message']}" for row in rows]
    return answer.of_facts("\n".join(lines) or "Nothing to say about it.", {"advice": rows})


async def _made(
    ctx: Context[Any, Any], wish: Wish, word: ElicitationResult[Consent], request_id: str | None
) -> CallToolResult:
    if not (isinstance(word, AcceptedElicitation) and word.data.spend):
        raise ToolError("The person did not agree to the cost; nothing was spent.")
    maker = maker_of(ctx)
    shares: dict[int, float] = {}

    async def report(kind: str, job: Job) -> None:
        shares[job.id] = STEPS.get(kind, 1.0)
        cost = "" if job.cost is None else f", {job.cost} credits"
        await ctx.report_progress(sum(shares.values()), wish.count, f"image {job.id}: {kind}{cost}")

    quote = "price unknown" if wish.estimate is None else f"about {wish.estimate} credits"
    await ctx.report_progress(0, wish.count, f"{wish.count} × {wish.model}, {quote}")
    try:
        result = await maker.make(wish, request_id, report)
    except FluxwerkError as error:
        raise ToolError(str(error)) from error
    answered = answer.of_images(result.rows, maker.ledger_file, _spent(maker.caps.spent, maker.caps.session))
    maker.hand_over(result)
    return answered


def _wish(options: Mapping[str, Json] | None, **columns: Json) -> Wish:
    try:
        return read_wish(columns, options)
    except FluxwerkError as error:
        raise ToolError(str(error)) from error


def _located(ctx: Context[Any, Any], roots: ListRootsResult, name: str, text: str) -> str:
    maker = maker_of(ctx)
    folders = [maker.folder, *maker.read, *folders_of(str(root.uri) for root in roots.roots)]
    try:
        return locate(name, text, folders)
    except FluxwerkError as error:
        raise ToolError(str(error)) from error


def _model(name: str) -> catalog.Model:
    try:
        return catalog.get_model(name)
    except FluxwerkError as error:
        raise ToolError(str(error)) from error


def _spent(spent: Decimal, cap: Decimal | None) -> str:
    return f"This session has spent {spent} credits" + (f" of {cap}." if cap is not None else ".")


def _first_price(model: catalog.Model) -> float | None:
    try:
        return float(prices.estimate(model, *SQUARE))
    except UnknownPriceError:
        return None
