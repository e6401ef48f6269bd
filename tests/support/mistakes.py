"""Typical mistakes on the command line, and what is answered; `python tests/support/mistakes.py` writes the page.

Every command runs without a key and without a network, in a temporary folder that holds the files it needs.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from fluxwerk.cli.group import group

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "when-it-fails.md"
# Environment variables that would change the answers.
SET_BY_HAND = ("BFL_API_KEY", "BFL_BASE_URL", "BFL_REGION", "BFL_WEBHOOK_SECRET", "FLUXWERK_KEYS")
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
FILES = {
    "notes.txt": b"a red fox\n",
    "photo.heic": HEIC,
    "taken": b"",
    "hook.json": b"{}",
    "no-prompt.csv": b"text\na red fox\n",
    "typo.csv": b"prompt,widht\na red fox,512\n",
    "sizes.csv": b"prompt,width\na red fox,12\n",
    "prompts.csv": b"prompt\na red fox\n",
    "header.csv": b"prompt\n",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: a title, the command as it is typed, and what to do."""

    title: str
    command: str
    advice: str


SECTIONS: dict[str, tuple[Mistake, ...]] = {
    "The prompt": (
        Mistake("A prompt without quotes", "fluxwerk generate a red fox", "Put the prompt in quotes."),
        Mistake("No prompt at all", "fluxwerk generate", "Write the prompt after the command."),
        Mistake(
            "An empty prompt",
            'fluxwerk generate ""',
            "A variable of the shell was perhaps empty; print it. Pass `--allow-empty-prompt` to send it all the same.",
        ),
        Mistake(
            "A prompt for a model that takes none",
            'fluxwerk edit "sharper" -m deblur -i photo.png',
            "Leave the prompt out.",
        ),
        Mistake(
            "An edit without an image",
            'fluxwerk edit "make it night"',
            "Name the image with `-i photo.jpg`; to make a new image use `fluxwerk generate`.",
        ),
    ),
    "Names": (
        Mistake("A misspelt command", 'fluxwerk genrate "a fox"', "Use the suggested command."),
        Mistake("A misspelt command of a group", "fluxwerk batch rum prompts.csv", "Use the suggested command."),
        Mistake("A misspelt option", 'fluxwerk generate "a fox" --widht 512', "Use the suggested option."),
        Mistake(
            "An option before its command",
            'fluxwerk --offline generate "a fox"',
            'Write `fluxwerk generate "a fox" --offline`.',
        ),
        Mistake("An option without its value", 'fluxwerk generate "a fox" --seed', "Write `--seed 7`."),
        Mistake("One argument too many", "fluxwerk price flux-2-pro 1024x1024", "Write `--width 1024 --height 1024`."),
        Mistake("A misspelt model", 'fluxwerk generate "a fox" -m flux-2-prow', "Use the suggested model."),
        Mistake(
            "A model of another service",
            'fluxwerk generate "a fox" -m stable-cascade',
            "Choose a model from `fluxwerk models`.",
        ),
        Mistake("An unknown region", 'fluxwerk generate "a fox" --region asia', "Choose one of the three regions."),
    ),
    "Sizes and options": (
        Mistake("A width in words", 'fluxwerk generate "a fox" --width wide', "Write the width in pixels."),
        Mistake("An image that is too small", 'fluxwerk generate "a fox" --width 33', "Ask for at least 64 pixels."),
        Mistake(
            "An image that is too large",
            'fluxwerk generate "a fox" --width 8000 --height 8000',
            "Ask for fewer pixels, and enlarge the image afterwards.",
        ),
        Mistake(
            "A size off the grid",
            'fluxwerk generate "a fox" --width 1001 --dry-run',
            "Ask for a multiple of 16 if the exact size matters.",
        ),
        Mistake(
            "A ratio for a model that takes a size",
            'fluxwerk generate "a fox" --aspect-ratio 16:9',
            "Write `--width 1344 --height 768`.",
        ),
        Mistake(
            "A ratio with the wrong sign",
            'fluxwerk generate "a fox" -m flux-kontext-pro --aspect-ratio 16/9',
            "Write `16:9`.",
        ),
        Mistake(
            "An option that the model does not take",
            'fluxwerk generate "a fox" --steps 50',
            "Look at `fluxwerk models flux-2-pro`, or choose `-m flux-2-flex`.",
        ),
        Mistake("Too many steps", 'fluxwerk generate "a fox" -m flux-2-flex --steps 500', "Ask for at most 50 steps."),
        Mistake(
            "A tolerance that is too high",
            'fluxwerk generate "a fox" --safety-tolerance 9',
            "Choose a value within the range.",
        ),
        Mistake("A seed that is not a number", 'fluxwerk generate "a fox" --seed red', "Write a whole number."),
        Mistake("`--option` without a value", 'fluxwerk generate "a fox" --option seed', "Write `--option seed=7`."),
        Mistake(
            "`--option` with a misspelt name",
            'fluxwerk generate "a fox" --option safty_tolerance=2',
            "Use the suggested name.",
        ),
        Mistake("No images at all", 'fluxwerk generate "a fox" -n 0', "Ask for at least one."),
        Mistake(
            "Too many images at once",
            'fluxwerk generate "a fox" -n 1000',
            "Write a manifest and use `fluxwerk batch run`, which survives a crash and keeps a budget.",
        ),
        Mistake("No time at all", 'fluxwerk generate "a fox" --timeout 0', "Leave `--timeout` out."),
    ),
    "Images that go in": (
        Mistake("An image that does not exist", 'fluxwerk edit "at night" -i photo.jpg', "Check the name."),
        Mistake("A file that is not an image", 'fluxwerk edit "at night" -i notes.txt', "Name an image."),
        Mistake("A photo in the format of a phone", 'fluxwerk edit "at night" -i photo.heic', "Save it as JPEG."),
        Mistake(
            "A folder instead of an image", 'fluxwerk edit "at night" -i folder', "Name one image after each `-i`."
        ),
        Mistake(
            "A mask of another size",
            'fluxwerk fill "a lake" -i photo.png --mask small.png',
            "Make the mask as large as the image.",
        ),
        Mistake(
            "More references than the model takes",
            'fluxwerk edit "a collage" -m flux-2-klein-4b ' + " ".join(["-i photo.png"] * 9),
            "Leave some out, or choose a model that takes more.",
        ),
    ),
    "Files that come out": (
        Mistake(
            "A format that contradicts the name",
            'fluxwerk generate "a fox" --format png -o fox.jpg',
            "Leave `--format` out: the name decides.",
        ),
        Mistake("A folder as the output", 'fluxwerk generate "a fox" -o folder', "Write `-o folder/fox.png`."),
        Mistake(
            "An output below a file",
            'fluxwerk generate "a fox" --offline -o taken/fox.png',
            "Choose a folder, or remove the file that has its name.",
        ),
        Mistake(
            "A contact sheet over another image",
            'fluxwerk generate "a fox" --offline -n 4 --sheet photo.png',
            "Choose another name.",
        ),
    ),
    "Keys and addresses": (
        Mistake(
            "No key",
            'fluxwerk generate "a fox"',
            "Set `BFL_API_KEY`, write it into `.env`, or try `--offline`.",
        ),
        Mistake(
            "An environment file that does not exist",
            "fluxwerk credits --env-file secrets.env",
            "Check the name; without `--env-file` it is `.env` in this folder.",
        ),
        Mistake(
            "Offline and elsewhere at once",
            "fluxwerk credits --offline --region eu",
            "Use one of the two.",
        ),
        Mistake(
            "Collecting from an offline server",
            "fluxwerk wait 8b7c1d9e --offline",
            "Run the server by itself with `fluxwerk serve`, and give its address to both commands.",
        ),
    ),
    "Prices": (
        Mistake("A price that is not public", "fluxwerk price deblur", "Look at the price in the service's dashboard."),
        Mistake("An input size without a height", "fluxwerk price flux-2-pro -i 1024", "Write `-i 1024x768`."),
    ),
    "Many images from a file": (
        Mistake("A manifest that does not exist", "fluxwerk batch plan prompt.csv", "Check the name."),
        Mistake("A manifest without prompts", "fluxwerk batch plan no-prompt.csv", "Name the column `prompt`."),
        Mistake("A misspelt column", "fluxwerk batch plan typo.csv", "Give the column the name of the option."),
        Mistake("A wrong value in a row", "fluxwerk batch plan sizes.csv", "Correct the row that is named."),
        Mistake("A cap in words", "fluxwerk batch run prompts.csv --max-cost lots", "Write credits, or `none`."),
    ),
    "Your own server": (
        Mistake("A port out of range", "fluxwerk serve --port 99999", "Choose a port up to 65535, or 0."),
        Mistake("Weights without their engine", "fluxwerk serve --weights klein", "Add `--engine diffusers`."),
        Mistake("A network that does not exist", "fluxwerk serve --allow-network 10.0.0.0/99", "Write `10.0.0.0/8`."),
        Mistake("Both kinds of keys", "fluxwerk serve --key one --keys keys.json", "Use one of the two."),
        Mistake("A key file that does not exist", "fluxwerk serve --keys keys.json", "Create the first key."),
        Mistake("A webhook without its secret", "fluxwerk webhook sign hook.json", "Set `BFL_WEBHOOK_SECRET`."),
    ),
}


def page() -> str:
    """Run every command and write the whole page."""
    count = sum(len(section) for section in SECTIONS.values())
    lines = [
        "# When it fails",
        "",
        f"{count} typical mistakes on the command line: what one types, what is answered, and what to do.",
        "Nothing is sent or charged in any of them.",
        "The command exits with code 2, or with 3 where a key is missing; `fluxwerk --help` lists the exit codes.",
        "",
        "`python tests/support/mistakes.py` writes this page by running the commands; a test compares.",
    ]
    for title, mistakes in SECTIONS.items():
        lines += ["", f"## {title}"]
        for mistake in mistakes:
            answer = "\n".join(run(mistake.command)[1].splitlines())
            lines += ["", f"### {mistake.title}", "", "```console", f"$ {mistake.command}", answer, "```", ""]
            lines += [mistake.advice]
    return "\n".join([*lines, ""])


def run(command: str) -> tuple[int, str]:
    """Run one command in a folder of its own; return the exit code and all that it prints."""
    with _folder():
        done = CliRunner().invoke(
            group,
            shlex.split(command)[1:],
            prog_name="fluxwerk",
            env=dict.fromkeys(SET_BY_HAND),
        )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@contextlib.contextmanager
def _folder() -> Generator[None]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("folder").mkdir()
        for name, data in FILES.items():
            Path(name).write_bytes(data)
        for name, side in (("photo.png", 512), ("small.png", 256)):
            Image.new("RGB", (side, side), "red").save(name)
        # The page shows the answers of an installation without pillow-heif, which is an extra of its own.
        before = sys.modules.get("pillow_heif")
        sys.modules["pillow_heif"] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules["pillow_heif"]
            if before is not None:
                sys.modules["pillow_heif"] = before


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    PAGE.write_text(page(), encoding="utf-8")
