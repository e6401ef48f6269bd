"""Where a server keeps its state: in memory, in a folder, or in PostgreSQL with the files beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fluxwerk.errors import Fault, InvalidUsageError

if TYPE_CHECKING:
    from fluxwerk.server.state.store import Store
    from fluxwerk.storage import Storage


def overruled(name: str, *others: str) -> bool:
    """Whether an option is only in the environment, while another one that takes its place was typed."""
    source = click.get_current_context().get_parameter_source
    is_typed = any(source(other) is ParameterSource.COMMANDLINE for other in others)
    return is_typed and source(name) is ParameterSource.ENVIRONMENT


def spelled(name: str) -> str:
    """Write an option of the running command as it was given: typed, or by its environment variable."""
    context = click.get_current_context()
    option = next(option for option in context.command.params if option.name == name)
    if context.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
        return f"{option.opts[0]} (from {option.envvar})"
    return option.opts[0]


def open_place(folder: str | None, database: str | None, files: str | None) -> Store:
    """Open the store that the options name; raises `InvalidUsageError` for options that do not go together."""
    from fluxwerk.server.state.store import DiskStore, MemoryStore  # noqa: PLC0415

    if database is not None:
        if folder is not None:
            raise InvalidUsageError("--state and --database exclude each other; use one of them.")
        return open_fleet(database, files)
    if folder is not None:
        return DiskStore(folder, files=None if files is None else _checked(files))
    if files is not None:
        hint = "images without the tasks they belong to would never be deleted"
        raise InvalidUsageError("", faults=[Fault(spelled("storage"), files, "needs --state or --database", hint)])
    return MemoryStore()


def _checked(files: str) -> Storage:
    """Open a place for files, and prove that it can be written before anything is accepted."""
    from fluxwerk.storage import open_storage  # noqa: PLC0415

    storage = open_storage(files)
    storage.check()
    return storage


def _scheme(address: str) -> str:
    """Show of an address no more than how it begins: it may have a password."""
    return f"{address.partition('://')[0]}://…" if "://" in address else address


def open_fleet(database: str, files: str | None) -> Store:
    """Open the store that many processes share."""
    from fluxwerk.ledger.postgresql import is_address  # noqa: PLC0415
    from fluxwerk.server.state.fleet import FleetDatabase, FleetStore  # noqa: PLC0415

    if not is_address(database):
        hint = "such as postgresql://fluxwerk@db.example/fluxwerk"
        raise InvalidUsageError(
            "", faults=[Fault(spelled("database"), _scheme(database), "must be postgresql://…", hint)]
        )
    if files is None:
        hint = "a folder that every process reaches, or a bucket such as s3://images"
        raise InvalidUsageError("", faults=[Fault("--storage", None, f"is required with {spelled('database')}", hint)])
    return FleetStore(FleetDatabase(database), _checked(files))
