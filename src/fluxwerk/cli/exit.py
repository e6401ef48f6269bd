"""How a command ends: one `Error: …` on stderr that says what to do next, and an exit code for scripts."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

import click

from fluxwerk import errors
from fluxwerk.cli.usage import explain_usage

USAGE, AUTHENTICATION, CREDITS, MODERATION, TIMEOUT, IN_DOUBT, SERVICE, INTERRUPTED = 2, 3, 4, 5, 6, 7, 8, 130
EXITS = (
    (1, "no image"),
    (USAGE, "usage"),
    (AUTHENTICATION, "authentication"),
    (CREDITS, "credits"),
    (MODERATION, "moderation"),
    (TIMEOUT, "timeout"),
    (IN_DOUBT, "in doubt"),
    (SERVICE, "service or network"),
    (INTERRUPTED, "interrupted"),
)
# The first class that matches decides.
CODES: tuple[tuple[type[errors.FluxwerkError], int], ...] = (
    (errors.MissingKeyError, AUTHENTICATION),
    (errors.AuthenticationError, AUTHENTICATION),
    (errors.InsufficientCreditsError, CREDITS),
    (errors.ModerationError, MODERATION),
    (errors.TaskTimeoutError, TIMEOUT),
    (errors.InDoubtError, IN_DOUBT),
    (errors.InvalidUsageError, USAGE),
    (errors.TaskFailedError, 1),
    (errors.LinkExpiredError, 1),
    (errors.FluxwerkError, SERVICE),
)


@contextmanager
def explained() -> Generator[None]:
    """Print an error as a message instead of a traceback, and exit with its code."""
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # Not a mistake: click shows the help of a group that was called without a command.
            raise
        click.echo(f"Error: {explain_usage(error)}", err=True)
        sys.exit(USAGE)
    except errors.FluxwerkError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        # The reader has closed the pipe, as `| head` does; click ends quietly.
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {place}{error.strerror or error}.", err=True)
        sys.exit(1)


def report(error: errors.FluxwerkError) -> int:
    """Print an error and how to collect what is paid for; return the exit code."""
    click.echo(f"Error: {error}", err=True)
    if error.task and not isinstance(error, errors.TaskTimeoutError | errors.TaskFailedError):
        click.echo(f"The task is paid for: {errors.collect_later(error.task)}", err=True)
    return code_of(error)


def code_of(error: errors.FluxwerkError) -> int:
    """Choose the exit code for an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
