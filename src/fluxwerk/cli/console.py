"""The output of the commands: progress on stderr, results on stdout, JSON with --json."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from fluxwerk.errors import collect_later
from fluxwerk.protocol.wire import dump
from fluxwerk.types import Event, Json, Outcome, Task, is_flux

if TYPE_CHECKING:
    from fluxwerk.client.image import Image


def money(credit: Decimal) -> str:
    """Format credits and their price in dollars: 4.5 credits ($0.045)."""
    plain = f"{credit.normalize():f}"
    dollars = (credit / 100).normalize()
    cents = f"{dollars:.2f}" if -dollars.as_tuple().exponent < 2 else f"{dollars:f}"  # type: ignore[operator]  # noqa: PLR2004
    return f"{plain} credit{'' if credit == 1 else 's'} (${cents})"


def put_json(value: Mapping[str, Json]) -> None:
    """Print one JSON object on one line of stdout."""
    click.echo(dump(value).decode())


class ProgressLine:
    """Shows progress: one live line on a terminal, plain lines elsewhere; `tasks` are paid for and not saved yet."""

    def __init__(self, *, offline: bool, quiet: bool) -> None:
        self.tasks: dict[str, Task] = {}
        self._offline = offline
        self._quiet = quiet
        self._show: Callable[[str], None] = lambda _: None
        # The command prints these warnings itself.
        logging.getLogger("fluxwerk.client.session").addHandler(logging.NullHandler())

    def show(self, text: str) -> None:
        """Show a line of progress."""
        self._show(text)

    def on_event(self, event: Event) -> None:
        """Receive an event of the client."""
        if event.task:
            self.tasks[event.task.id] = event.task
        if event.kind == "submitted" and event.task:
            self._show(f"submitted as {event.task.id}")
        elif event.kind == "polled" and event.status and event.status.outcome is Outcome.RUNNING:
            share = f" {event.status.progress:.0%}" if event.status.progress else ""
            self._show(f"{event.status.word}{share} after {event.seconds:.1f} s, poll {event.attempt}")
        elif event.kind == "retrying":
            self._show(f"trying again: {event.reason}")
        elif event.kind == "ready":
            self._show("ready, downloading")

    @contextmanager
    def live(self, what: str) -> Generator[None]:
        """Show progress while a command waits; on Ctrl-C print how to collect what is paid for."""
        try:
            with self._line(what):
                yield
        except KeyboardInterrupt:
            click.echo(f"\nInterrupted. {self._consequence()}", err=True)
            sys.exit(130)

    @contextmanager
    def _line(self, what: str) -> Generator[None]:
        if self._quiet:
            yield
        elif not sys.stderr.isatty():
            self._show = _plain()
            yield
        else:
            from rich.console import Console  # noqa: PLC0415  (slow to import, and only needed on a terminal)
            from rich.markup import escape  # noqa: PLC0415

            with Console(stderr=True).status(escape(what)) as status:
                self._show = lambda text: status.update(escape(f"{what}: {text}"))
                yield

    def _consequence(self) -> str:
        if self._offline:
            return "Nothing was charged; the offline server has ended with this command."
        if self.tasks:
            return "\n".join(f"The image is paid for; {collect_later(task)}" for task in self.tasks.values())
        return "No answer had arrived. If the request was already sent, it may have been charged; check your usage at https://dashboard.bfl.ai."


def _plain() -> Callable[[str], None]:
    """Print each kind of line once, so that polls do not fill a log."""
    seen: set[str] = set()

    def show(text: str) -> None:
        kind = text.partition(" after ")[0]
        if kind not in seen:
            seen.add(kind)
            # A closed stderr must not end a request that is paid for.
            with suppress(OSError):
                click.echo(text, err=True)

    return show


def summary(image: Image, file: str, estimate: Decimal | None, began: float, *, offline: bool) -> dict[str, Json]:
    """Describe a saved image as JSON."""
    return {
        "file": file,
        "model": image.model,
        "engine": image.engine or "bfl",
        "is_flux": is_flux(image.engine),
        "seed": image.seed,
        "width": image.width,
        "height": image.height,
        "content_type": image.content_type,
        "estimated_cost": estimate,
        "cost": image.cost,
        "charged": not offline,
        "seconds": round(time.monotonic() - began, 3),
        "task": {"id": image.task.id, "polling_url": image.task.polling_url},
    }


def sentence(facts: Mapping[str, Json]) -> str:
    """Describe a saved image in one line."""
    estimate = facts["estimated_cost"]
    price = f"estimated {money(estimate)}" if estimate is not None else "price not public"
    if not facts["charged"]:
        price += ", nothing charged"
    elif facts["cost"] is not None:
        price += f", cost {money(facts['cost'])}"
    makers = {False: f"made by the {facts['engine']} engine, not by FLUX; ", None: "made by an unknown engine; "}
    maker = makers.get(facts["is_flux"], "")
    size = f"{facts['width']}×{facts['height']}"
    seed = "unknown" if facts["seed"] is None else facts["seed"]
    return f"{facts['file']}: {size}, {maker}model {facts['model']}, seed {seed}, {price}, {facts['seconds']:.1f} s"
