"""What a tool answers about images: a path, a thumbnail and the cost, never the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp.types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from fluxwerk import imagefile
from fluxwerk.ledger.database import Row
from fluxwerk.ledger.job import Stage, read_job
from fluxwerk.mcp.thumbnail import thumbnail
from fluxwerk.types import is_flux

IN_DOUBT = (
    "its submit was not answered and may have been charged, so it is not sent again; a person settles it with "
    "`fluxwerk batch settle {job} --ledger {ledger}`"
)

# What a text adds by whether FLUX made the image, which a server does not always know.
MAKERS = {False: ", a placeholder that was not made by FLUX", None: ", made by an unknown engine"}


def of_images(rows: Sequence[Row], ledger: Path, spent: str) -> CallToolResult:
    """Answer with what became of the jobs of a wish; it is an error only if there is no image."""
    content: list[ContentBlock] = []
    images: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for row in rows:
        if row["stage"] == Stage.SAVED:
            images.append(facts(row))
            content += _shown(row)
        else:
            failures.append({"image": row["id"], "stage": row["stage"], "reason": _reason(row, ledger)})
            content.append(_text(f"Image {row['id']} is {row['stage']}: {_reason(row, ledger)}"))
    content.append(_text(spent))
    structured = {"images": images, "failures": failures, "spent": spent}
    return CallToolResult(content=content, structured_content=structured, is_error=not images)


def of_list(rows: Sequence[Row]) -> CallToolResult:
    """Answer with a list of earlier images, without thumbnails."""
    listed = [facts(row) for row in rows]
    lines = [f"{one['image']}  {one['path']}  {one['model']}  {one['prompt'] or ''}" for one in listed]
    return CallToolResult(
        content=[_text("\n".join(lines) or "There are no images yet.")], structured_content={"images": listed}
    )


def of_facts(text: str, structured: dict[str, Any]) -> CallToolResult:
    """Answer with a sentence for a person and the same as data."""
    return CallToolResult(content=[_text(text)], structured_content=structured)


def facts(row: Row) -> dict[str, Any]:
    """Say what is known of a saved image."""
    job = read_job(row)
    found = _measured(Path(row["path"]))
    return {
        "image": job.id,
        "path": row["path"],
        "width": found.width if found else None,
        "height": found.height if found else None,
        "model": job.model,
        "engine": job.engine or "bfl",
        "seed": job.fields.get("seed") if job.seed is None else job.seed,
        "cost": None if job.cost is None else float(job.cost),
        "prompt": job.fields.get("prompt"),
    }


def _shown(row: Row) -> list[ContentBlock]:
    one, path = facts(row), Path(row["path"])
    cost = "unknown" if one["cost"] is None else f"{one['cost']:g} credits"
    placeholder = MAKERS.get(is_flux(one["engine"]), "")
    size = f"{one['width']}×{one['height']}"
    text = f"Image {one['image']}: {path} ({size}, {one['model']}{placeholder}, seed {one['seed']}, cost {cost})"
    blocks: list[ContentBlock] = [_text(text)]
    small = thumbnail(path)
    if small:
        blocks.append(ImageContent(type="image", data=small, mime_type="image/jpeg"))
    return [*blocks, ResourceLink(type="resource_link", uri=path.as_uri(), name=path.name)]


def _reason(row: Row, ledger: Path) -> str:
    if row["stage"] == Stage.DOUBTFUL:
        return IN_DOUBT.format(ledger=ledger, job=row["id"])
    if row["stage"] == Stage.FAILED:
        return str(row["reason"])
    return "it is paid for, and still being made; the same request collects it"


def _measured(path: Path) -> imagefile.Raster | None:
    try:
        return imagefile.measure(path.read_bytes())
    except OSError:
        return None


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)
