"""A batch for the eye: one HTML page with a small copy of every image, its prompt, seed and cost, and every failure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from importlib.resources import files

from fluxwerk.batch.report import export_row
from fluxwerk.client.thumbnail import thumbnail
from fluxwerk.errors import FluxwerkError, InvalidUsageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol.trust import redact
from fluxwerk.storage import Storage, read_file

# In pixels: two thousand copies make a page of about thirty megabytes.
LONGEST_SIDE_OF_COPY = 320
LARGEST_FILE = 100 * 1024 * 1024
SHOWN_STAGES = (Stage.SAVED, Stage.FAILED, Stage.DOUBTFUL)


@dataclass(frozen=True, slots=True)
class Card:
    """What the sheet shows of one job; `copy` is a small JPEG, empty where there is no image to show."""

    job: int
    line: int
    stage: str
    model: str
    prompt: str
    tag: str
    seed: int | None
    cost: Decimal | None
    path: str
    reason: str
    copy: bytes = b""


def check_pillow() -> None:
    """Raise `InvalidUsageError` where small copies cannot be made."""
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("PIL") is None:
        raise InvalidUsageError("A sheet needs the package pillow. Install it: pip install 'fluxwerk[images]'")


def cards(ledger: Ledger, storage: Storage | None = None, *, root: str = "", prompts: bool = True) -> Iterator[Card]:
    """Describe the jobs that have ended, in their order; `storage` at the URL `root` holds images elsewhere."""
    for row in ledger.rows():
        if row["stage"] not in SHOWN_STAGES:
            continue
        facts = export_row(ledger, row)
        data = _load(row["path"], storage, root) if row["stage"] == Stage.SAVED else b""
        yield Card(
            job=row["id"],
            line=row["line"],
            stage=row["stage"],
            model=row["model"],
            prompt=str(facts["prompt"] or "") if prompts else "",
            tag=row["tag"] or "",
            seed=facts["seed"],
            cost=facts["cost"],
            path=row["path"] or "",
            reason=redact(row["reason"] or ""),
            copy=thumbnail(data, LONGEST_SIDE_OF_COPY),
        )


def page(name: str, sums: Sums, shown: Iterable[Card]) -> Iterator[bytes]:
    """Write the page piece by piece: it loads nothing, and its script may only filter."""
    style, script = _part("sheet.css"), _part("sheet.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    counts = ", ".join(f"{sums.jobs[stage]} {stage}" for stage in Stage if sums.jobs.get(stage)) or "no jobs"
    yield f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{escape(name)}</title>
<style>{style}</style>
<h1>{escape(name)}</h1>
<p>{escape(counts)}; {sums.spent.normalize():f} credits spent.</p>
<form role="search">
<label>Find <input type="search" name="text" placeholder="prompt, model, tag, file, reason"></label>
<label>Stage <select name="stage"><option value="">all</option>{_options()}</select></label>
<output aria-live="polite"></output>
</form>
<main>
""".encode()
    for card in shown:
        yield _figure(card).encode("utf-8", "replace")
    yield f"</main>\n<script>{script}</script>\n</html>\n".encode()


def _options() -> str:
    return "".join(f'<option value="{stage}">{stage}</option>' for stage in SHOWN_STAGES)


def _figure(card: Card) -> str:
    text = f"{card.prompt} {card.model} {card.tag} {card.path} {card.reason}".lower()
    facts = [f"job {card.job}", f"line {card.line}", card.model]
    facts += [f"seed {card.seed}"] if card.seed is not None else []
    facts += [f"{card.cost.normalize():f} credits"] if card.cost is not None else []
    facts += [card.tag] if card.tag else []
    encoded = base64.b64encode(card.copy).decode()
    picture = f'<img alt="" src="data:image/jpeg;base64,{encoded}">' if card.copy else '<div class="none"></div>'
    ending = card.path.rpartition("/")[2] if card.stage == Stage.SAVED else f"{card.stage}: {card.reason}"
    return (
        f'<figure data-stage="{escape(card.stage)}" data-text="{escape(text)}">{picture}<figcaption>'
        f"<p>{escape(card.prompt)}</p><small>{escape(' · '.join(facts))}</small>"
        f'<small class="ending">{escape(ending)}</small></figcaption></figure>\n'
    )


def _load(address: str, storage: Storage | None, root: str) -> bytes:
    """Read an image where it was saved; what is gone by now has no copy."""
    try:
        if "://" not in address:
            return read_file(address, LARGEST_FILE)
        held = storage.get(address.removeprefix(root.rstrip("/") + "/")) if storage else None
    except (OSError, FluxwerkError):
        return b""
    return held or b""


def _part(name: str) -> str:
    return files("fluxwerk").joinpath("batch", name).read_text(encoding="utf-8")
