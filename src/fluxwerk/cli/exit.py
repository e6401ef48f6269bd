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
    """Print what was raised as a message, not as a traceback, and exit with its number."""
    try:
        yield
    except errors.FluxwerkError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        if error.task and not isinstance(error, errors.TaskTimeoutError | errors.TaskFailedError):
            click.echo(f"The task is paid for: {errors.collect_later(error.task)}", err=True)
        sys.exit(code_of(error))
    except BrokenPipeError:
        # Whoever reads has read enough, as `| head` does; click ends quietly.
        raise
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        click.echo(f"{error.strerror or error}{place}", err=True)
        sys.exit(1)


def code_of(error: errors.FluxwerkError) -> int:
    """Choose the exit code for an error."""
    return next(code for kind, code in CODES if isinstance(error, kind))
