"""Several images of one request: numbered files, one summary, and a contact sheet on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from fluxwerk.catalog.rows import Model
from fluxwerk.cli.console import ProgressLine, money, put_json, sentence, summary
from fluxwerk.cli.exit import code_of, report
from fluxwerk.cli.sheet import write_sheet
from fluxwerk.client.image import Image
from fluxwerk.errors import FluxwerkError, InDoubtError, StorageError, collect_later
from fluxwerk.types import Json, Request

# A typing error must not buy thousands of images; `fluxwerk batch` makes more.
LONGEST_SERIES = 100


def numbered(request: Request, count: int) -> list[Request]:
    """Repeat a request; with a seed each repetition takes the next one."""
    seed = request.fields.get("seed")
    if seed is None:
        return [replace(request) for _ in range(count)]
    return [replace(request, fields={**request.fields, "seed": seed + number}) for number in range(count)]


class Series:
    """One run of several images; `save` writes an image and returns the file it became."""

    def __init__(
        self,
        model: Model,
        output: Path | None,
        sheet: Path | None,
        estimate: Decimal | None,
        save: Callable[[Image, Path], Path],
        progress: ProgressLine,
        *,
        offline: bool,
        as_json: bool,
    ) -> None:
        self._model, self._output, self._sheet = model, output, sheet
        self._estimate, self._save, self._progress = estimate, save, progress
        self._offline, self._as_json = offline, as_json
        self._made: dict[int, tuple[dict[str, Json], bytes]] = {}
        self._errors: list[FluxwerkError] = []

    def run(self, client: Any, requests: Sequence[Request]) -> int:
        """Make and save every image, print the summary, and return the exit code."""
        began = time.monotonic()
        numbers = {id(request): number for number, request in enumerate(requests, 1)}
        results = client.generate_many(requests, model=self._model)
        try:
            for result in results:
                if result.image is None:
                    self._errors.append(result.error)
                    if result.error.task:
                        self._progress.tasks.pop(result.error.task.id, None)
                    continue
                self._keep(result.image, numbers[id(result.request)], len(requests), began)
                if len(self._made) < len(requests):
                    self._progress.show(self._so_far(len(requests), time.monotonic() - began))
        except StorageError as error:
            # Submitting stops, because no further image could be saved; tasks in flight are paid for.
            results.close()
            self._errors.append(error)
            for task in self._progress.tasks.values():
                if error.task is None or task.id != error.task.id:
                    click.echo(f"The image is paid for; {collect_later(task)}", err=True)
        sheet = self._write_sheet() if self._made and self._sheet else None
        self._summarize(len(requests), time.monotonic() - began, sheet)
        return self._report()

    def _so_far(self, count: int, seconds: float) -> str:
        """Tell images, money, rate and the time left, by how long the images so far took together."""
        made = len(self._made)
        costs = [facts["cost"] for facts, _ in self._made.values() if facts["cost"] is not None]
        money_so_far = f", {money(sum(costs, Decimal(0)))}" if costs and not self._offline else ""
        left = (count - made - len(self._errors)) * seconds / made
        return (
            f"{made} of {count} images saved{money_so_far}, {made / max(seconds, 0.1):.1f}/s, about {left:.0f} s left"
        )

    def _write_sheet(self) -> Path | None:
        assert self._sheet is not None
        images = [(Path(str(facts["file"])).name, data) for _, (facts, data) in sorted(self._made.items())]
        try:
            write_sheet(self._sheet, images)
        except OSError as error:
            self._errors.append(StorageError(f"{self._sheet} cannot be written: {error.strerror or error}."))
            return None
        return self._sheet

    def _keep(self, image: Image, number: int, count: int, began: float) -> None:
        file = self._save(image, self._name(image, number, count))
        self._progress.tasks.pop(image.task.id, None)
        facts = summary(image, str(file), self._estimate, began, offline=self._offline)
        self._made[number] = facts, image.data
        if not self._as_json:
            click.echo(sentence(facts))

    def _name(self, image: Image, number: int, count: int) -> Path:
        output = self._output or Path(f"{self._model.name}-{image.seed}.{image.suffix}")
        if count == 1 or (self._output is None and image.seed is not None):
            return output
        return output.with_stem(f"{output.stem}-{number:0{len(str(count))}}")

    def _summarize(self, count: int, seconds: float, sheet: Path | None) -> None:
        rows = [facts for _, (facts, _) in sorted(self._made.items())]
        costs = [row["cost"] for row in rows if row["cost"] is not None]
        if self._as_json:
            estimate = None if self._estimate is None else self._estimate * count
            facts = {
                "images": rows,
                "count": count,
                "failed": count - len(rows),
                "sheet": str(sheet) if sheet else None,
            }
            put_json(facts | {"estimated_cost": estimate, "cost": sum(costs, Decimal(0)) if costs else None})
            return
        cost = (
            "nothing charged" if self._offline else f"cost {money(sum(costs, Decimal(0)))}" if costs else "cost unknown"
        )
        place = f", contact sheet {sheet}" if sheet else ""
        click.echo(f"{len(rows)} of {count} images saved, {cost}, {seconds:.1f} s{place}")

    def _report(self) -> int:
        """Print each kind of error once, and return the exit code of the first, or of a doubt, which is about money."""
        seen: set[str] = set()
        for error in self._errors:
            if error.task or str(error) not in seen:
                seen.add(str(error))
                report(error)
        self._errors.sort(key=lambda error: not isinstance(error, InDoubtError))
        return code_of(self._errors[0]) if self._errors else 0
