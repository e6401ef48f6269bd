"""`fluxwerk lint`: advice on prompts, with the place and the mend."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from fluxwerk.cli.completion import complete_models
from fluxwerk.cli.console import put_json
from fluxwerk.cli.creation import json_option
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.errors import InvalidUsageError
from fluxwerk.prompt import Advice, lint, mend
from fluxwerk.types import Json


@click.command("lint")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("-f", "--file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
              help="A text file with a prompt a line; - reads stdin.")  # fmt: skip
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, shell_complete=complete_models,
              help="The model that the prompts are for.")  # fmt: skip
@click.option("-i", "--images", type=click.IntRange(min=0), default=0, help="How many reference images go with them.")
@click.option("--fix", is_flag=True, help="Print the prompts with every mend, and what is left to do on stderr.")
@json_option
def command(prompts: tuple[str, ...], file: Path | None, model: str, images: int, *, fix: bool, as_json: bool) -> None:
    """Give advice on PROMPTS for a model; nothing is sent, and a prompt is never refused.

    \b
    fluxwerk lint "A street with no people"
    fluxwerk lint "A street with no people" --fix
    fluxwerk lint -f prompts.txt -m flux-2-klein-9b
    """  # noqa: D301
    if bool(prompts) == bool(file):
        raise InvalidUsageError("Give either prompts or --file with a prompt a line.")
    texts = list(prompts) if file is None else [line for line in _read(file).splitlines() if line.strip()]
    count = 0
    for number, prompt in enumerate(texts, 1):
        found = lint(prompt, model, images=images)
        count += len(found)
        place = f"{file or 'prompt'}:{number}" if len(texts) > 1 else "prompt"
        if as_json:
            put_json({"prompt": prompt, "mended": mend(prompt, found), "advice": [facts(one) for one in found]})
        elif fix:
            mended = mend(prompt, found)
            click.echo(mended)
            left = lint(mended, model, images=images)
            click.echo(
                "\n".join(line for one in left for line in lines_of(mended, one, place)), err=True, nl=bool(left)
            )
        else:
            for line in (line for one in found for line in lines_of(prompt, one, place)):
                click.echo(line)
    if not fix and not as_json:
        click.echo(f"{count} pieces of advice on {len(texts)} prompts." if count else "Nothing to say.", err=True)


def facts(advice: Advice) -> dict[str, Json]:
    """Describe a piece of advice as JSON."""
    return {
        "rule": advice.rule,
        "message": advice.message,
        "start": advice.start,
        "end": advice.end,
        "mend": advice.mend,
    }


def lines_of(prompt: str, advice: Advice, place: str) -> Iterator[str]:
    """Show a piece of advice as compilers do: the place, the line with the words underlined, and the mend."""
    if advice.start == advice.end:
        yield f"{place}: {advice.rule}: {advice.message}"
        return
    before, line, after = _around(prompt, advice)
    yield f"{place}:{advice.start + 1}: {advice.rule}: {advice.message}"
    yield f"  | {line}"
    yield f"  | {' ' * before}{'^' * (len(line) - before - after)}"
    if advice.mend is not None:
        words = advice.mend.strip(" ,")
        yield f"  = mend: write {words!r}" if words else "  = mend: leave it out"


def _around(prompt: str, advice: Advice, most: int = 40) -> tuple[int, str, int]:
    """Cut out the words of an advice with what stands around them: letters before, the text, letters after."""
    start, end = max(0, advice.start - most), min(len(prompt), advice.end + most)
    head = "…" if start else ""
    tail = "…" if end < len(prompt) else ""
    text = f"{head}{prompt[start:end]}{tail}".replace("\n", " ").replace("\t", " ")
    return advice.start - start + len(head), text, end - advice.end + len(tail)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidUsageError(f"{file} is not UTF-8 text; save it as UTF-8 with one prompt a line.") from None
