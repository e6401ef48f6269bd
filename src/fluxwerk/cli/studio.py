"""`fluxwerk studio`: the page in a browser, with a server behind it that keeps its images."""

from __future__ import annotations

import json
import threading
import time
import webbrowser
from pathlib import Path

import click

from fluxwerk.errors import InvalidUsageError

YEAR_SECONDS = 365 * 86_400
ASK_EVERY = 0.1
START_SECONDS = 60.0


@click.command("studio", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port on which the server listens."
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser.")
@click.pass_context
def command(context: click.Context, *, port: int, show: bool) -> None:
    """Open the studio: make images in the browser. Starts a server if none runs.

    Every other option is one of `fluxwerk serve`. Without --state and --keep the images are kept for a year in your
    own data folder.

    \b
    fluxwerk studio
    fluxwerk studio --engine diffusers --weights ~/weights/FLUX.2-klein-4B
    """  # noqa: D301
    address = f"http://127.0.0.1:{port}"
    if _answers(address):
        if context.args:
            given = " ".join(context.args)
            text = (
                f"A server runs at {address} already, so {given} would have no effect. Stop it, or name another --port."
            )
            raise InvalidUsageError(text)
        click.echo(f"A server runs at {address} already.", err=True)
        if show:
            webbrowser.open(address)
        return
    if show:
        threading.Thread(target=_open_when_ready, args=(address,), daemon=True).start()
    from fluxwerk.cli.serve import command as serve  # noqa: PLC0415

    serve.main(["--port", str(port), *_kept(context.args), *context.args], standalone_mode=False)


def _kept(args: list[str]) -> list[str]:
    """Keep the images where nothing else is said."""
    import platformdirs  # noqa: PLC0415

    names = {arg.partition("=")[0] for arg in args}
    folder = Path(platformdirs.user_data_dir("fluxwerk", appauthor=False)) / "studio"
    kept: list[str] = []
    if not names & {"--state", "--database"}:
        folder.parent.mkdir(parents=True, exist_ok=True)
        kept += ["--state", str(folder)]
        click.echo(f"The images are kept in {folder}.", err=True)
    return kept if "--keep" in names else [*kept, "--keep", str(YEAR_SECONDS)]


def _open_when_ready(address: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if _answers(address):
            webbrowser.open(address)
            return
        time.sleep(ASK_EVERY)


def _answers(address: str) -> bool:
    """Whether a server of ours listens there."""
    import httpx2  # noqa: PLC0415

    try:
        answer = httpx2.get(f"{address}/v1/session", timeout=2.0, trust_env=False)
        return answer.is_success and "keyless" in answer.json()
    except (httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError):
        return False
