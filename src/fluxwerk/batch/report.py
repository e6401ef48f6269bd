"""Reports on a ledger: its sums, its rows as a table, the history of one job."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from fluxwerk import storage
from fluxwerk.batch.provenance import SECRET_FIELDS
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.budget import Sums
from fluxwerk.ledger.database import Row, Transaction
from fluxwerk.ledger.job import Stage, to_credits
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.protocol.trust import redact
from fluxwerk.protocol.wire import dump
from fluxwerk.types import Json

MONEY_COLUMNS = ("estimate", "cost", "settled", "earlier")
MOMENT_COLUMNS = ("submitted", "moved", "expires")
EXPORT_COLUMNS = (
    "job", "line", "item", "stage", "model", "tag", "prompt", "path", "sha256", "seed", "cost", "task", "seconds",
    "engine", "request_hash", "kind", "reason",
)  # fmt: skip
FORMULA_SIGNS = ("=", "+", "-", "@")
# The categories of separators, control characters and marks without a width.
INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
EXPORT_FORMATS = (".csv", ".jsonl", ".parquet")
RATE_SECONDS = 60.0
SAVED_RECENTLY = (
    "select count(*) as jobs, min(at) as since from moves where id > :last and at > :since and after = :saved"
)
LAST_TRANSITION = "select coalesce(max(id), 0) as last from moves"
RECENT_TRANSITIONS = 20_000
# What this ledger has learned about durations: the mean of its latest images, and the slots of what is left.
LEARNED = (
    "select avg(moved - submitted) as seconds from (select moved, submitted from jobs where stage = :saved"
    " and submitted is not null order by id desc limit 200) as recent"
)
OPEN_SLOTS = "select sum(slots) as slots from pools where name in (select pool from jobs where stage = :planned)"


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast images are saved, in jobs a second over the last minute, and how many seconds the rest takes.

    While none is saved the seconds follow from how long earlier images of the ledger took, if there are any.
    """

    per_second: float
    seconds_left: float | None


def rate(ledger: Ledger, sums: Sums) -> Rate:
    """Measure how many images are saved a second now, by all processes."""
    with ledger.database.read() as transaction:
        now = transaction.now()
        last = transaction.one(LAST_TRANSITION)
        start = (last["last"] if last else 0) - RECENT_TRANSITIONS
        row = transaction.one(SAVED_RECENTLY, last=start, since=now - RATE_SECONDS, saved=Stage.SAVED)
        open_jobs = sums.count(Stage.PLANNED, Stage.SUBMITTING, Stage.SUBMITTED, Stage.READY)
        if not row or not row["jobs"]:
            return Rate(0.0, _learned(transaction, open_jobs))
    speed = row["jobs"] / max(1.0, now - row["since"])
    return Rate(speed, open_jobs / speed)


def _learned(transaction: Transaction, open_jobs: int) -> float | None:
    """Estimate the seconds that the rest takes from earlier images, with all slots in use."""
    mean, slots = transaction.one(LEARNED, saved=Stage.SAVED), transaction.one(OPEN_SLOTS, planned=Stage.PLANNED)
    if not (mean and mean["seconds"] and slots and open_jobs):
        return None
    width = min(open_jobs, slots["slots"] or open_jobs)
    return float(mean["seconds"]) * -(-open_jobs // width)


def facts_of(sums: Sums, speed: Rate | None = None) -> dict[str, Json]:
    """Write the sums as JSON."""
    return {
        "jobs": {str(stage): sums.jobs.get(stage, 0) for stage in Stage},
        "spent": sums.spent,
        "reserved": sums.reserved,
        "in_doubt": sums.doubtful,
        "planned": sums.planned,
        "cap": sums.cap,
        "per_second": round(speed.per_second, 3) if speed else None,
        "seconds_left": round(speed.seconds_left, 1) if speed and speed.seconds_left is not None else None,
    }


def exported(ledger: Ledger, *, prompts: bool = True) -> Iterator[dict[str, Json]]:
    """Yield the exported columns of every job.

    Without `prompts` they hold neither the prompt nor a hash to guess it by.
    """
    for row in ledger.rows():
        facts = export_row(ledger, row)
        if not prompts:
            del facts["prompt"]
            facts["request_hash"] = None
        yield facts


def export_row(ledger: Ledger, row: Row) -> dict[str, Json]:
    """Describe one job: path, SHA-256, seed, cost in credits, task, and the seconds from submit to saved."""
    fields = ledger.job_fields(row)
    booked = row["settled"] if row["settled"] is not None else row["cost"]
    seconds = row["moved"] - row["submitted"] if row["stage"] == Stage.SAVED and row["submitted"] else None
    return {
        "job": row["id"],
        "line": row["line"],
        "item": row["item"],
        "stage": row["stage"],
        "model": row["model"],
        "tag": row["tag"],
        "prompt": fields.get("prompt"),
        "path": row["path"],
        "sha256": row["sha256"],
        "seed": fields.get("seed") if row["seed"] is None else row["seed"],
        "cost": to_credits(booked + row["earlier"]) if booked is not None else None,
        "task": row["task"],
        "seconds": None if seconds is None else round(seconds, 3),
        "engine": row["engine"],
        "request_hash": row["request_hash"],
        "kind": row["kind"],
        "reason": row["reason"],
    }


def export(ledger: Ledger, path: Path, *, prompts: bool = True) -> int:
    """Write all jobs to a CSV, JSON lines or Parquet file, whole or not at all; returns how many there are."""
    write = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}.get(path.suffix.lower())
    if write is None:
        raise InvalidUsageError(
            "", faults=[Fault("--output", str(path), f"must end in one of {', '.join(EXPORT_FORMATS)}")]
        )
    return write(
        path, exported(ledger, prompts=prompts), [name for name in EXPORT_COLUMNS if prompts or name != "prompt"]
    )


def csv_lines(rows: Iterable[Mapping[str, Json]], names: Iterable[str]) -> Iterator[str]:
    """Write rows as CSV, a line at a time; what a spreadsheet would run as a formula gets an apostrophe."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), lineterminator="\r\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _escaped(value) for name, value in row.items()})
        yield file.getvalue()
        file.seek(0)
        file.truncate()
    if file.getvalue():
        yield file.getvalue()


def why(ledger: Ledger, identity: int) -> str:
    """Describe everything that happened to one job, for people."""
    row = ledger.row(identity)
    lines = [f"job {identity}, line {row['line']} of the manifest, image {row['item']}: {row['stage']}"]
    for name in row.keys():  # noqa: SIM118  (a row of SQLite iterates over its values)
        shown = _shown(name, row[name])
        if shown and name not in ("id", "line", "item", "stage", "sheet"):
            lines.append(f"  {name:13} {shown}")
    lines.append("what happened")
    for step in ledger.transitions(identity):
        note = f": {redact(step['note'])}" if step["note"] else ""
        lines.append(f"  {_moment(step['at'])}  {step['before']} → {step['after']}{note}")
    lines += _evidence(ledger, identity)
    advice = _advice(identity, Stage(row["stage"]), row["worker"])
    return "\n".join([*lines, *([advice] if advice else [])])


def doubt_lines(ledger: Ledger, row: Row) -> Iterator[str]:
    """Describe one job in doubt for the person who settles it."""
    price = f"{to_credits(row['estimate'])} credits" if row["estimate"] is not None else "an unknown price"
    yield f"  job {row['id']}, line {row['line']}: {row['model']}, {price}, attempt {row['attempt']}"
    yield f"  in doubt since {_moment(row['moved'])}: {redact(row['reason'] or '')}"
    prompt = ledger.job_fields(row).get("prompt")
    if prompt:
        yield f"  {prompt!r}"
    yield from _evidence(ledger, row["id"])


def _evidence(ledger: Ledger, identity: int) -> Iterator[str]:
    for said in ledger.doubts.evidence(identity):
        yield f"  {_moment(said['at'])}  the balance: {said['verdict']}. {said['text']}"


def _advice(identity: int, stage: Stage, worker: str | None) -> str:
    owner = f"The process {worker} works on it." if worker else "No process works on it now."
    return {
        Stage.PLANNED: "It waits for a slot: `fluxwerk batch run` submits it.",
        Stage.SUBMITTING: f"{owner} If that process has died, the job will be listed as in doubt.",
        Stage.SUBMITTED: f"{owner} `fluxwerk batch run` collects it; nothing more is charged.",
        Stage.READY: f"{owner} `fluxwerk batch run` downloads it; nothing more is charged.",
        Stage.FAILED: f"`fluxwerk batch retry {identity}` tries it again.",
        Stage.DOUBTFUL: (
            "It may have been charged. Look at your account's usage at the time above, then run one of\n"
            f"  fluxwerk batch settle {identity} --charged        it was charged, and the image is lost\n"
            f"  fluxwerk batch settle {identity} --resubmit       it was not charged: submit it again\n"
            f"  fluxwerk batch settle {identity} --collect TASK   this is its task: fetch the image"
        ),
    }.get(stage, "")


def _shown(name: str, value: Any) -> str:
    if value is None or name in ("url", "token"):
        return ""
    if name in MONEY_COLUMNS:
        return f"{to_credits(value)} credits"
    if name in MOMENT_COLUMNS:
        return _moment(value)
    if name == "request":
        value = json.dumps({key: held for key, held in json.loads(value).items() if key not in SECRET_FIELDS})
    return redact(str(value))


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _escaped(value: Json) -> Json:
    if isinstance(value, str) and _is_formula(value):
        return f"'{value}"
    return f"{value:f}" if isinstance(value, Decimal) else value


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet would run a text: it looks past blanks and invisible characters, and reads wide signs."""
    if text.startswith(("\t", "\r", "\n")):
        return True
    first = next((sign for sign in text if unicodedata.category(sign) not in INVISIBLE), "")
    return unicodedata.normalize("NFKC", first).startswith(FORMULA_SIGNS)


def _csv(path: Path, rows: Iterator[dict[str, Json]], names: list[str]) -> int:
    return _streamed(path, rows, lambda counted: (line.encode() for line in csv_lines(counted, names)))


def _jsonl(path: Path, rows: Iterator[dict[str, Json]], _: list[str]) -> int:
    return _streamed(path, rows, lambda counted: (dump(row) + b"\n" for row in counted))


def _streamed(
    path: Path, rows: Iterator[dict[str, Json]], lines: Callable[[Iterator[dict[str, Json]]], Iterator[bytes]]
) -> int:
    count = 0

    def counted() -> Iterator[dict[str, Json]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    storage.stream(lines(counted()), path)
    return count


def _parquet(path: Path, rows: Iterator[dict[str, Json]], names: list[str]) -> int:
    from fluxwerk.batch.parquet import write_rows  # noqa: PLC0415  (only Parquet files pay for it)

    return write_rows(path, rows, names)
