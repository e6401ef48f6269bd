"""From a manifest to planned jobs: every fault found, every duplicate named and every price added up, before a cent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath

from fluxwerk.batch.expansion import Expansion, Values
from fluxwerk.batch.manifest import ManifestLine, fingerprint, read_manifest
from fluxwerk.batch.row import Defaults, Rows, dump, named
from fluxwerk.client.base import DEFAULT_MODEL
from fluxwerk.drive import WALL, Clock
from fluxwerk.errors import ConflictError, Fault, InvalidUsageError
from fluxwerk.ledger.inputs import Inputs
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.ledger.plans import CHUNK, Bill, Check, PlannedJob, PlanWriter, is_planned, known, sweep
from fluxwerk.types import Json

DUPLICATES = ("refuse", "skip", "keep")
# How many faults are listed; a manifest with more has one mistake in every row.
MOST_FAULTS = 50
MOST_SHOWN = 20
# How many characters of requests a chunk holds at most, so that long prompts do not pile up.
CHUNK_CHARACTERS = 4_000_000
# How often, and with which pause in seconds, planning waits for a process that plans the same names.
ATTEMPTS, ATTEMPT_PAUSE = 240, 0.5


@dataclass(slots=True)
class Plan:
    """What planning found: `already` says that the same manifest was planned before, and nothing was added.

    `duplicates` holds (line, the line or job it repeats) of the rows that were skipped or kept.
    """

    name: str
    jobs: int = 0
    lines: int = 0
    already: bool = False
    skipped: int = 0
    kept: int = 0
    duplicates: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    bills: list[Bill] = field(default_factory=list[Bill])

    @property
    def total(self) -> Decimal:
        """What all of it should cost, in credits, as far as prices are public."""
        return sum((bill.credits for bill in self.bills), Decimal(0))


def plan(
    ledger: Ledger,
    manifest: str | os.PathLike[str] | Iterable[Mapping[str, Json]],
    *,
    model: str = DEFAULT_MODEL,
    options: Mapping[str, Json] | None = None,
    duplicates: str = "refuse",
    assume_price: Decimal | None = None,
    encoding: str | None = None,
    variables: Iterable[Values] = (),
    on_line: Callable[[int], None] = lambda _: None,
    clock: Clock = WALL,
    check: Check = lambda _: None,
) -> Plan:
    """Check every row of a manifest and write its jobs into the ledger, all of them or none.

    `manifest` is a file or a list of rows; `model` and `options` hold where a row is silent.  Rows that repeat an
    earlier request are refused, skipped or kept.  `encoding` is that of a text file, UTF-8 by default.  With
    `variables`, tables of values, each row with `{{names}}` becomes a row for every combination of them.  What `check`
    raises, in the transaction in which the jobs come to be, leaves none of them.  Raises `InvalidUsageError` with the
    line of every fault.
    """
    if duplicates not in DUPLICATES:
        raise InvalidUsageError("", faults=[Fault("duplicates", duplicates, f"must be one of {', '.join(DUPLICATES)}")])
    source = _Source.of(manifest, encoding, Expansion(variables, encoding))
    for _ in range(ATTEMPTS):
        with suppress(ConflictError):
            rows = Rows(Defaults(model, source.folder, options or {}, assume_price))
            return _planned(ledger, source, rows, duplicates, on_line, check)
        clock.sleep(ATTEMPT_PAUSE)
    raise ConflictError(
        f"Another process is planning images with the same names as {source.name}; plan it again when that has ended."
    )


def _planned(
    ledger: Ledger, source: _Source, rows: Rows, duplicates: str, on_line: Callable[[int], None], check: Check
) -> Plan:
    """Plan once; raises `ConflictError` if another process is in the way, and has written nothing then."""
    found = Plan(source.name)
    sweep(ledger.database)
    if is_planned(ledger.database, source.sha256):
        found.already = True
        return found
    writer = PlanWriter(ledger.database, source.name, source.sha256)
    try:
        planner = _Planner(ledger, writer, rows, found, duplicates)
        planner.write(source.read(), on_line)
        found.bills = writer.bills()
        if not writer.open(check):
            found.already = True
    except InvalidUsageError:
        # What looks like a repetition may be the same manifest, which another process has planned meanwhile.
        if not is_planned(ledger.database, source.sha256):
            raise
        found = Plan(source.name, already=True)
    finally:
        # A plan that was opened is left alone.
        writer.discard()
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    sha256: str
    folder: Path
    read: Callable[[], Iterable[ManifestLine]]

    @classmethod
    def of(
        cls,
        manifest: str | os.PathLike[str] | Iterable[Mapping[str, Json]],
        encoding: str | None,
        expansion: Expansion,
    ) -> _Source:
        if isinstance(manifest, str | os.PathLike):
            path = Path(manifest)
            sha256 = expansion.sign(fingerprint(path))
            read = partial(read_manifest, path, encoding)
            return cls(path.name, sha256, path.absolute().parent, lambda: expansion.expand(read()))
        rows = [{name: value for name, value in row.items() if value is not None} for row in manifest]
        digest = hashlib.sha256("\n".join(dump(row) for row in rows).encode()).hexdigest()
        lines = [ManifestLine(number, row) for number, row in enumerate(rows, 1)]
        return cls("rows", expansion.sign(digest), Path.cwd(), lambda: expansion.expand(lines))


class _Planner:
    """Writes a manifest a chunk at a time; after the first fault it only looks for more faults."""

    def __init__(self, ledger: Ledger, writer: PlanWriter, rows: Rows, found: Plan, policy: str) -> None:
        self._database = ledger.database
        self._inputs = Inputs(ledger.database)
        self._writer = writer
        self._rows = rows
        self._found = found
        self._policy = policy
        self._faults: list[Fault] = []
        self._chunk: list[PlannedJob] = []
        self._folders: dict[str, int] = {}
        self._weight = 0

    def write(self, lines: Iterable[ManifestLine], on_line: Callable[[int], None]) -> None:
        for line in lines:
            self._found.lines += 1
            for job in self._planned_jobs(line):
                self._chunk.append(job)
                self._weight += len(job.request)
                if len(self._chunk) >= CHUNK or self._weight >= CHUNK_CHARACTERS:
                    self._flush()
                    on_line(line.number)
        self._flush()
        if not self._found.lines:
            self._note([Fault(self._found.name, None, "holds no rows")])
        self._refuse()

    def _planned_jobs(self, line: ManifestLine) -> Iterator[PlannedJob]:
        try:
            yield from self._rows.planned_jobs(line)
        except InvalidUsageError as fault:
            self._note(named(fault.faults or [Fault("model", None, str(fault))], line.number))

    def _flush(self) -> None:
        chunk, self._chunk, self._weight = self._chunk, [], 0
        self._check_outputs(chunk)
        wanted = list(self._unrepeated(chunk))
        if not self._faults and wanted:
            for found in self._rows.found:
                self._inputs.note(found)
            self._rows.found.clear()
            self._writer.add(wanted, self._rows.pools)
            self._found.jobs += len(wanted)

    def _unrepeated(self, chunk: Sequence[PlannedJob]) -> Iterator[PlannedJob]:
        """Leave out what was asked for before, in this manifest or in another one of the ledger."""
        before = known(self._database, "request_hash", {job.hash for job in chunk}, self._writer.id)
        here: dict[str, int] = {}
        for job in chunk:
            where = before.get(job.hash)
            first = f"job {where.job} of {where.plan}" if where and not where.own else None
            line = where.line if where and where.own else here.get(job.hash)
            # The images of one row without a seed are wanted side by side.
            repeats = first or (f"line {line}" if line not in (None, job.line) else None)
            here.setdefault(job.hash, job.line)
            if repeats is None or self._repeated(job, repeats):
                yield job

    def _repeated(self, job: PlannedJob, repeats: str) -> bool:
        if len(self._found.duplicates) < MOST_SHOWN:
            self._found.duplicates.append((job.line, repeats))
        if self._policy == "keep":
            self._found.kept += 1
            return True
        self._found.skipped += 1
        if self._policy == "refuse":
            hint = "use --duplicates skip or keep, or a column count"
            self._note([Fault(f"line {job.line}", None, f"asks for the same as {repeats}", hint)])
        return False

    def _check_outputs(self, chunk: Sequence[PlannedJob]) -> None:
        """Refuse a name that another image has, or that lies below the file of another image."""
        named = [(job, job.output) for job in chunk if job.output is not None]
        folders = {output: _folders(output) for _, output in named}
        asked = {name for output, above in folders.items() for name in (output, *above)}
        before = known(self._database, "output", asked, self._writer.id)
        here: dict[str, int] = {}
        for job, output in named:
            for name in (output, *folders[output]):
                where = before.get(name)
                other = f"line {here[name]}" if name in here else where and f"job {where.job}"
                if other:
                    wrong = "is the name of another image already" if name == output else "lies below another image"
                    self._note([Fault(f"line {job.line}, output", output, f"{wrong}: that of {other}")])
            if output in self._folders:
                wrong = f"is the folder of another image: that of line {self._folders[output]}"
                self._note([Fault(f"line {job.line}, output", output, wrong)])
            here[output] = job.line
            for folder in folders[output]:
                self._folders.setdefault(folder, job.line)

    def _note(self, faults: list[Fault]) -> None:
        self._faults += faults
        if len(self._faults) >= MOST_FAULTS:
            self._refuse()

    def _refuse(self) -> None:
        if self._faults:
            most = " (there may be more)" if len(self._faults) >= MOST_FAULTS else ""
            name = self._found.name
            raise InvalidUsageError(f"{name} has faults{most}; nothing was written or sent:", faults=self._faults)


def _folders(output: str) -> list[str]:
    """List the folders of a name that could be files: those with a dot, since any other file gets an ending."""
    return [str(folder) for folder in PurePosixPath(output).parents if "." in folder.name]
