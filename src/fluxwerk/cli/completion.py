"""`fluxwerk completion`: completion of commands, options and models in a shell."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from fluxwerk import catalog

SHELLS = ("bash", "zsh", "fish")
# Which click reads when the shell asks.
VARIABLE = "_FLUXWERK_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that completes commands, options and models in a SHELL.

    \b
    eval "$(fluxwerk completion bash)"
    eval "$(fluxwerk completion zsh)"
    fluxwerk completion fish > ~/.config/fish/completions/fluxwerk.fish
    """  # noqa: D301
    from fluxwerk.cli.group import group  # noqa: PLC0415  (the group loads this module)

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "fluxwerk", VARIABLE).source())


def complete_models(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a model."""
    return [
        CompletionItem(row.name, help=row.best_for)
        for row in catalog.list_models().values()
        if row.name.startswith(begun)
    ]
