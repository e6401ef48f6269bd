"""Where the keys are: in the state of a server, or in a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fluxwerk.cli.place import overruled
from fluxwerk.cli.server import PACKAGES
from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.state.applications import Applications
    from fluxwerk.server.state.keys import Keyring

C = TypeVar("C", bound=Callable[..., Any])
FILE = "keys.json"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """What `--state`, `--database` and `--file` say."""

    state: str | None
    database: str | None
    file: str | None

    @property
    def is_file(self) -> bool:
        """Whether the keys are in a file of their own."""
        return not (self.state or self.database)

    @property
    def keyring(self) -> Keyring:
        """The keys of the file."""
        from fluxwerk.server.state.keys import Keyring  # noqa: PLC0415  (the server is an extra)

        return Keyring(self.file or FILE)

    @contextmanager
    def open(self) -> Generator[Applications]:
        """Open the applications of a state, also while servers use it; raises `InvalidUsageError`."""
        from fluxwerk.server.state.applications import Applications  # noqa: PLC0415
        from fluxwerk.server.state.places import open_shared  # noqa: PLC0415

        if self.is_file:
            hint = "add --state DIR or --database URL"
            raise InvalidUsageError(
                "", faults=[Fault("--file", self.file or FILE, "has keys and no applications", hint)]
            )
        with open_shared(self.state, self.database) as database:
            yield Applications(database)


def place_options(function: C) -> C:
    """Add `--state`, `--database` and `--file`, and pass them as `place`."""

    def called(*arguments: Any, state: str | None, database: str | None, file: str | None, **more: Any) -> Any:
        if overruled("database", "state", "file"):
            database = None
        if sum(one is not None for one in (state, database, file)) > 1:
            raise InvalidUsageError("--state, --database and --file exclude each other; use one of them.")
        try:
            import_module("fluxwerk.server.state.keys")
        except ModuleNotFoundError as missing:
            raise InvalidUsageError(
                f"`fluxwerk keys` needs the package {missing.name}. Install it: {PACKAGES}"
            ) from None
        return function(*arguments, place=KeyPlace(state, database, file), **more)

    for option in (
        click.option("--file", type=click.Path(dir_okay=False), help=f"File of keys, by default {FILE}."),
        click.option("--database", envvar="FLUXWERK_DATABASE", metavar="URL", help="PostgreSQL database of the state."),
        click.option("--state", type=click.Path(file_okay=False), help="Folder of the state, as of `fluxwerk serve`."),
    ):
        called = option(called)
    called.__doc__ = function.__doc__
    return called  # type: ignore[return-value]
