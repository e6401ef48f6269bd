"""`fluxwerk init`: ask for the key once, and keep it where git does not see it."""

from __future__ import annotations

from pathlib import Path

import click

from fluxwerk.cli.console import money
from fluxwerk.cli.keychain import ignore_env, write_env, write_keyring
from fluxwerk.client.credentials import read_credentials

DASHBOARD = "https://dashboard.bfl.ai/get-started"


@click.command("init")
@click.option("--keyring", is_flag=True, help="Keep the key in the keyring of the system instead of .env.")
@click.option("--check/--no-check", default=True, help="Ask the service for the balance, to see that the key works.")
@click.option("--base-url", metavar="URL", help="Address of another server with the same API.")
def command(base_url: str | None, *, keyring: bool, check: bool) -> None:
    """Ask for the API key and keep it: in .env of this folder, which git ignores then, or in the keyring.

    \b
    fluxwerk init
    echo "$KEY" | fluxwerk init --no-check
    """  # noqa: D301
    click.echo(f"Create a key at {DASHBOARD}.", err=True)
    key = click.prompt("API key", hide_input=True, err=True).strip()
    # The form is judged before anything is written or sent.
    read_credentials(key, None, base_url)
    if check:
        _check(key, base_url)
    if keyring:
        write_keyring(key)
        click.echo("The key is in the keyring; fluxwerk reads it where BFL_API_KEY is not set.", err=True)
        return
    file = write_env(Path.cwd(), key)
    ignored = ignore_env(Path.cwd())
    click.echo(f"The key is in {file.name}, readable by you only.", err=True)
    click.echo(f".gitignore {'now names' if ignored else 'names'} .env, so that git does not see it.", err=True)
    click.echo('Next: fluxwerk generate "A red fox in the snow" -o fox.png', err=True)


def _check(key: str, base_url: str | None) -> None:
    from fluxwerk.client.client import Client  # noqa: PLC0415  (slow to import)

    with Client(key, base_url=base_url, timeout=30) as client:
        click.echo(f"The key works; the balance is {money(client.credits())}.", err=True)
