"""The answers to usage errors: what is wrong, what is allowed, and what to do next."""

from __future__ import annotations

import re
from typing import Any

import click

# How click words an argument that no parameter takes.
EXTRA = "unexpected extra argument"
# How click words what is not allowed, and how we word what is.
WORDS = (
    (re.compile(r" is not a valid integer( range)?"), " must be a whole number"),
    (re.compile(r" is not a valid float( range)?"), " must be a number"),
    (re.compile(r" is not in the range x>=([-\d.]+)"), r" must be at least \1"),
    (re.compile(r" is not in the range ([-\d.]+)<=x<=([-\d.]+)"), r" must be from \1 to \2"),
    (re.compile(r" is not one of "), " must be one of "),
    (re.compile(r"^(?:File|Path) ('.*') does not exist"), r"\1 does not exist"),
    (re.compile(r"^File ('.*') is a directory"), r"\1 is a folder, and a file is needed"),
)


class Group(click.Group):
    """A group of commands that suggests the nearest name for a misspelt one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; raises `click.UsageError` with the nearest name."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = _near(name, known)
            hint = f" Did you mean `{ctx.command_path} {near}`?" if near else ""
            raise click.UsageError(f"There is no command {name!r}.{hint} The commands are {', '.join(known)}.", ctx)
        return super().resolve_command(ctx, args)


class PromptCommand(click.Command):
    """A command with a prompt; without quotes a shell passes each word of it as an argument."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        # `parse_args` refuses the extra arguments itself.
        self.allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; raises `click.UsageError` with the quoted prompt if there are extra ones."""
        super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            words = " ".join([ctx.params["prompt"], *ctx.args])
            quoted = '"' + words.replace('"', '\\"') + '"'
            raise click.UsageError(
                f"The prompt must be one argument, and there are {1 + len(ctx.args)}. "
                f"Put it in quotes: {ctx.command_path} {quoted}.",
                ctx,
            )
        return ctx.args


def explain_usage(error: click.UsageError) -> str:
    """Word a usage error of click: what is wrong, what is allowed, and what to do next."""
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error)
    if isinstance(error, click.MissingParameter):
        variable = getattr(error.param, "envvar", None)
        hint = f" It can also be set as {variable}." if variable else ""
        return f"{_name(error)} is missing.{hint}{_usage(error)}"
    if isinstance(error, click.BadParameter):
        return f"{_name(error)}: {_end(_reworded(error.message))}{_help(error)}"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} needs a value after it.{_help(error)}"
    message = error.message.strip()
    if EXTRA in message:
        rest = message.partition("(")[2].rstrip(").")
        return f"{_path(error)} takes no further argument, but got {rest!r}.{_usage(error)}"
    return f"{_end(message)}{_help(error)}"


def _no_such_option(error: click.NoSuchOption) -> str:
    known: list[str] = []
    if error.ctx:
        for parameter in error.ctx.command.get_params(error.ctx):
            known += [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []
    near = _near(error.option_name, known)
    hint = f" Did you mean {near}?" if near else ""
    if not hint and error.ctx and isinstance(error.ctx.command, click.Group):
        hint = " Write the options of a command after the command."
    return f"{_path(error)} has no option {error.option_name}.{hint}{_help(error, 'lists the options')}"


def _reworded(message: str) -> str:
    text = message.strip()
    for theirs, ours in WORDS:
        text = theirs.sub(ours, text)
    return text


def _end(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _near(word: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (slow to import, and only needed for an error)

    return next(iter(get_close_matches(word, known, n=1)), "")


def _name(error: click.BadParameter) -> str:
    parameter = error.param
    if parameter is None:
        hint = error.param_hint or "a value"
        return hint if isinstance(hint, str) else " / ".join(hint)
    return (
        parameter.make_metavar(error.ctx)
        if isinstance(parameter, click.Argument) and error.ctx
        else _longest(parameter)
    )


def _longest(parameter: click.Parameter) -> str:
    return max(parameter.opts, key=len) if parameter.opts else str(parameter.name)


def _path(error: click.UsageError) -> str:
    return f"`{error.ctx.command_path}`" if error.ctx else "this command"


def _usage(error: click.UsageError) -> str:
    if error.ctx is None:
        return ""
    usage = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
    return f" The form is `{error.ctx.command_path} {usage}`;{_help(error)}"


def _help(error: click.UsageError, what: str = "explains it") -> str:
    return f" `{error.ctx.command_path} --help` {what}." if error.ctx else ""
