"""The table of commands; `--help` reads it without loading any of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from fluxwerk.cli.exit import EXITS, explained
from fluxwerk.cli.usage import Group

# name: (module, one line of help)
COMMANDS = {
    "init": ("init", "Ask for the API key and keep it."),
    "doctor": ("doctor", "Look for what stands in the way of an image."),
    "generate": ("generate", "Make an image from a prompt."),
    "edit": ("edit", "Change one or more images by a prompt."),
    "fill": ("fill", "Repaint what a mask covers."),
    "wait": ("wait", "Collect the image of a task that was submitted before."),
    "batch": ("batch", "Make many images from a manifest; a crash loses none."),
    "costs": ("costs", "Show what a batch has cost."),
    "history": ("history", "List the images of the ledgers in a folder."),
    "show": ("show", "Show an image and where it came from."),
    "replay": ("replay", "Rebuild the request of an image."),
    "lint": ("lint", "Give advice on a prompt, with mends; sends nothing."),
    "choose": ("choose", "Recommend a model for a wish, with reasons and price."),
    "models": ("models", "List the models, or show the options of one."),
    "price": ("price", "Estimate what images will cost; sends nothing."),
    "credits": ("credits", "Show the account's balance."),
    "serve": ("serve", "Run the BFL API on this machine."),
    "mcp": ("mcp", "Serve image tools to an assistant over MCP."),
    "conform": ("conform", "Compare a server with what is documented."),
    "weights": ("weights", "Look at files of open weights before serving them."),
    "studio": ("studio", "Make images in the browser; starts a server if none runs."),
    "worker": ("worker", "Render the tasks of servers that share a database."),
    "webhook": ("webhook", "Receive, verify and sign webhooks by hand."),
    "keys": ("keys", "Create, list and revoke the keys of your own server."),
    "tasks": ("tasks", "Settle the tasks of a gateway that are in doubt."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
}
EPILOG = "Exit codes: 0 done, " + ", ".join(f"{code} {words}" for code, words in EXITS) + "."


class Commands(Group):
    """A group that loads only the command that is called."""

    package = "fluxwerk.cli"
    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; return `None` for an unknown name."""
        if cmd_name not in self.table:
            return None
        module = import_module(f"{self.package}.{self.table[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.table.items()])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options of the group; a mistake in them ends with a message and an exit code."""
        with explained():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error becomes one message and an exit code."""
        with explained():
            return super().invoke(ctx)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  (click's signature)
    if wanted and not ctx.resilient_parsing:
        from fluxwerk.version import VERSION  # noqa: PLC0415

        click.echo(f"fluxwerk {VERSION}")
        ctx.exit()


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
def group() -> None:
    """Run FLUX in production: generate images, estimate their price, serve the API.

    \b
    fluxwerk generate "A serene mountain landscape at sunset" -o sunset.png --offline
    fluxwerk edit "Change the background to a sunset" -i photo.jpg -o out.png
    fluxwerk price flux-2-pro --width 1920 --height 1080

    With a key in BFL_API_KEY the BFL service makes the images. With --offline a renderer on this machine makes
    placeholders: no key is needed and nothing is charged.
    """  # noqa: D301  (\b is click's, and keeps the lines as they are)
