"""What generate, edit and fill do about a submit that was not answered: their options, and the question to a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from fluxwerk.errors import Fault, InDoubtError, InvalidUsageError

F = TypeVar("F", bound=Callable[..., Any])
CHOICES = ("stop", "ask", "settle", "resubmit")
AGAIN = "Submit it again? Say yes only if the account's usage shows no charge for it"


@dataclass(frozen=True, slots=True)
class DoubtOptions:
    """The values of --on-doubt and --exclusive-account."""

    on_doubt: str = "settle"
    exclusive: bool = False

    def check(self, *, many: bool) -> None:
        """Refuse options that exclude each other; raises `InvalidUsageError`."""
        if not self.asks:
            return
        if self.exclusive:
            hint = "leave out --exclusive-account, or use --on-doubt settle"
            raise InvalidUsageError("", faults=[Fault("--on-doubt", "ask", "asks before a balance can settle", hint)])
        if many:
            hint = "make one image at a time, or use --on-doubt stop"
            raise InvalidUsageError("", faults=[Fault("--on-doubt", "ask", "asks about one image", hint)])

    @property
    def asks(self) -> bool:
        """Whether a person is asked."""
        return self.on_doubt == "ask"

    @property
    def of_client(self) -> dict[str, str]:
        """The client's options; where a person is asked, no balance decides before."""
        if self.asks:
            return {}
        return {"on_doubt": self.on_doubt, "account": "exclusive" if self.exclusive else "shared"}


def doubt_options(command: F) -> F:
    """Add --on-doubt and --exclusive-account."""
    command = click.option(
        "--exclusive-account",
        "exclusive",
        is_flag=True,
        help="Nobody else uses or tops up the account meanwhile: its balance settles doubts.",
    )(command)
    return click.option(
        "--on-doubt",
        type=click.Choice(CHOICES),
        default="settle",
        show_default=True,
        help="What to do about a submit that was not answered; resubmit may pay twice.",
    )(command)


def wants_again(doubt: InDoubtError) -> bool:
    """Ask a person whether to send a submit in doubt again; no answer counts as no."""
    click.echo(str(doubt), err=True)
    try:
        return click.confirm(AGAIN, err=True)
    except click.Abort:
        return False
