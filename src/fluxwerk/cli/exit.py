"""How a command ends: a message on stderr that says what to do next, and a number for scripts."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

import click

from fluxwerk import errors

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
# The first kind that fits decides.
CODES: tuple[tuple[type[errors.Error], int], ...] = (
    (errors.NoKey, AUTHENTICATION),
    (errors.NotAllowed, AUTHENTICATION),
    (errors.OutOfCredits, CREDITS),
    (errors.Moderated, MODERATION),
    (errors.TimedOut, TIMEOUT),
    (errors.InDoubt, IN_DOUBT),
    (errors.Misused, USAGE),
    (errors.Failed, 1),
    (errors.Expired, 1),
    (errors.Error, SERVICE),
)


@contextmanager
def explained() -> Generator[None]:
    """Print what was raised as a message, not as a traceback, and exit with its number."""
    try:
        yield
    except errors.Error as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        if error.task and not isinstance(error, errors.TimedOut | errors.Failed):
            click.echo(f"The task is paid for: {errors.collect_later(error.task)}", err=True)
        sys.exit(code_of(error))
    except BrokenPipeError:
        # Whoever reads has read enough, as `| head` does; click ends quietly.
        raise
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        click.echo(f"{error.strerror or error}{place}", err=True)
        sys.exit(1)


def code_of(error: errors.Error) -> int:
    """Choose the exit code for an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
