"""State that survives the process: jobs and balances in SQLite, images as files beside it.

A job that was accepted is on the disk before its submit is answered.  The folder is its owner's alone: it holds
prompts, inputs and webhook secrets, but no key.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path

from fluxwerk import catalog, imagefile
from fluxwerk.engines import Canvas, Order
from fluxwerk.errors import FluxwerkError, InvalidUsageError, StorageError
from fluxwerk.protocol.wire import dump
from fluxwerk.server.state.accounts import NOTHING, Account, TaskRecord
from fluxwerk.server.state.outgoing import DeliveryAttempt, OutgoingWebhook
from fluxwerk.storage import save
from fluxwerk.types import Json, Task

SETTINGS = ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full")
TABLES = """
create table if not exists task (number integer primary key, id text unique, account text, body text);
create table if not exists account (digest text primary key, spent text);
create table if not exists fact (name text primary key, value blob);
create table if not exists damaged (number integer primary key, id text, account text, body blob, reason text);
"""
VERSION = b"2"
# What reading a row raises when it is damaged, or written by a release with other models or fields.
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, FluxwerkError)

# Bytes that a probe writes: more than the slack of a page.
PROBE = 65_536

log = logging.getLogger("fluxwerk.server")


class DiskStore:
    """The store in a folder; raises `InvalidUsageError` when another server uses it, or another release wrote it."""

    def __init__(self, folder: str | os.PathLike[str], entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._inputs_folder = self._folder / "inputs"
        for private in (self._folder / "images", self._inputs_folder):
            private.mkdir(mode=0o700, exist_ok=True)
            private.chmod(0o700)
        file = self._folder / "state.db"
        if file.exists() and not file.stat().st_size:
            raise InvalidUsageError(
                f"{file} is empty (0 bytes), so it holds no state. Restore it from a backup, or delete it."
            )
        os.close(os.open(file, os.O_CREAT | os.O_RDONLY, 0o600))
        self._connection = sqlite3.connect(file, timeout=0.5, isolation_level=None)
        try:
            for setting in SETTINGS:
                self._connection.execute(f"pragma {setting}")
            self._connection.executescript(TABLES)
        except sqlite3.DatabaseError as trouble:
            self._connection.close()
            hint = "does another server use it?" if "locked" in str(trouble) else "name another folder"
            raise InvalidUsageError(f"The state in {folder} cannot be opened ({trouble}); {hint}") from None
        if self._fact("version", lambda: VERSION) != VERSION:
            self._connection.close()
            raise InvalidUsageError(f"The state in {folder} was written by another release; name another folder.")
        self.secret = self._fact("secret", lambda: entropy(32))

    def close(self) -> None:
        """Let another server have the folder."""
        self._connection.close()

    def save(self, job: TaskRecord) -> None:
        """Write a job with its images and its account's balance; files first, so that no row lacks one.

        Raises `StorageError`.
        """
        with _unwritable(self._folder):
            self._save(job)
        if job.ready_at is not None:
            # From here on the image is read from the disk, and its inputs are no longer needed.
            job.image = None
            shutil.rmtree(self._inputs(job), ignore_errors=True)

    def _save(self, job: TaskRecord) -> None:
        if job.ready_at is None:
            self._save_inputs(job)
        elif job.image is not None:
            save(job.image, self._image(job), lasting=True)
        row = {"id": job.task.id, "account": job.account.digest, "body": dump(_write(job)).decode()}
        balance = {"digest": job.account.digest, "spent": str(job.account.spent)}
        task = "insert into task (id, account, body) values (:id, :account, :body) "
        account = "insert into account values (:digest, :spent) "
        with self._connection:
            self._connection.execute("begin")
            self._connection.execute(task + "on conflict (id) do update set body = excluded.body", row)
            self._connection.execute(account + "on conflict (digest) do update set spent = excluded.spent", balance)

    def forget(self, job: TaskRecord) -> None:
        """Remove a job and its files."""
        with _unwritable(self._folder):
            self._connection.execute("delete from task where id = ?", (job.task.id,))
        self._image(job).unlink(missing_ok=True)
        shutil.rmtree(self._inputs(job), ignore_errors=True)

    def image(self, job: TaskRecord) -> bytes | None:
        """Read the image of a job, if it is there and whole."""
        try:
            data = self._image(job).read_bytes() if job.word == "Ready" else b""
        except OSError:
            return None
        return None if imagefile.fault(data) else data

    def spent(self, digest: str) -> Decimal:
        """Say what an account has spent so far."""
        row = self._connection.execute("select spent from account where digest = ?", (digest,)).fetchone()
        return Decimal(row[0]) if row else NOTHING

    def load(self, account: Callable[[str], Account]) -> list[TaskRecord]:
        """Read every job; one whose image was lost is rendered again, which is free, unless its inputs are gone."""
        numbers = self._numbers()
        jobs = [job for number in numbers if (job := self._load(number, account))]
        aside = {row[0] for row in self._connection.execute("select id from damaged")}
        known = {job.task.id for job in jobs} | aside
        # Inputs of a row whose id cannot be read may be needed once it is repaired.
        unnamed = None in aside or len(self._numbers()) > len(jobs)
        for folder in () if unnamed else self._inputs_folder.glob("*"):
            # Its submit was never answered: the process ended between the files and the row.
            if folder.name not in known:
                shutil.rmtree(folder)
        for job in jobs:
            if job.ready_at is not None and job.word == "Ready" and self.image(job) is None:
                job.word, job.ready_at, job.settled = "Pending", None, None
            if job.ready_at is None:
                self._take_inputs(job)
        return jobs

    def probe(self) -> None:
        """Write a small file and a row, and remove the file; raises `StorageError`."""
        file = self._folder / "images" / "probe"
        with _unwritable(self._folder), self._connection:
            save(bytes(PROBE), file)
            file.unlink()
            self._connection.execute("insert or replace into fact values ('probe', zeroblob(?))", (PROBE,))

    def _numbers(self) -> list[int]:
        try:
            return [row[0] for row in self._connection.execute("select number from task order by number")]
        except sqlite3.DatabaseError as error:
            raise InvalidUsageError(
                f"{self._folder / 'state.db'} is damaged ({error}). Restore it from a backup, or move it away."
            ) from None

    def _load(self, number: int, account: Callable[[str], Account]) -> TaskRecord | None:
        """Read one job; a row that cannot be read is put aside in the table `damaged`, and named in the log."""
        name, row = f"row {number}", (None, None, None)
        try:
            ask = "select id, account, body from task where number = ?"
            row = self._connection.execute(ask, (number,)).fetchone()
            name = f"task {row[0]}"
            return _read(json.loads(row[2], parse_float=Decimal), account(row[1]))
        except (*UNREADABLE, sqlite3.DatabaseError) as error:
            reason = f"{type(error).__name__}: {error}"
        log.error("%s of the state cannot be read (%s); it is put aside in the table `damaged`.", name, reason)
        try:
            with self._connection:
                put = "insert or replace into damaged values (?, ?, ?, ?, ?)"
                self._connection.execute(put, (number, *row, reason))
                self._connection.execute("delete from task where number = ?", (number,))
        except sqlite3.DatabaseError as error:
            log.warning("%s cannot be put aside (%s); it stays where it is.", name, error)
        return None

    def _fact(self, name: str, make: Callable[[], bytes]) -> bytes:
        self._connection.execute("insert into fact values (?, ?) on conflict do nothing", (name, make()))
        return bytes(self._connection.execute("select value from fact where name = ?", (name,)).fetchone()[0])

    def _image(self, job: TaskRecord) -> Path:
        return self._folder / "images" / job.folder[:2] / f"{job.folder}.{job.order.output_format}"

    def _inputs(self, job: TaskRecord) -> Path:
        return self._inputs_folder / job.task.id

    def _save_inputs(self, job: TaskRecord) -> None:
        images = _images(job.order)
        for name, data in images.items():
            save(data, self._inputs(job) / name, lasting=True)
        job.inputs = tuple(images)

    def _take_inputs(self, job: TaskRecord) -> None:
        """Give a task its inputs back; if one is missing the image would differ, so none may be made."""
        try:
            files = {name: (self._inputs(job) / name).read_bytes() for name in job.inputs}
        except OSError:
            job.inputs_lost = True
            return
        references = tuple(data for name, data in files.items() if name.startswith("reference"))
        canvas = job.order.canvas
        if canvas is not None:
            canvas = Canvas(files["source"], files.get("mask"), canvas.offset)
        job.order = replace(job.order, references=references, canvas=canvas)


@contextmanager
def _unwritable(folder: Path) -> Generator[None]:
    """Report a disk that takes nothing as `StorageError`."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"The state in {folder} cannot be written ({error}).") from error


def _images(order: Order) -> dict[str, bytes]:
    files = {f"reference-{number:02}": data for number, data in enumerate(order.references)}
    if order.canvas is not None:
        files["source"] = order.canvas.source
        if order.canvas.mask is not None:
            files["mask"] = order.canvas.mask
    return files


def _write(job: TaskRecord) -> dict[str, Json]:
    order = job.order
    return {
        "task": {name: str(value) if isinstance(value, Decimal) else value for name, value in asdict(job.task).items()},
        "order": {
            "model": order.model,
            "prompt": order.prompt,
            "seed": order.seed,
            "width": order.width,
            "height": order.height,
            "output_format": order.output_format,
            "options": dict(order.options),
            "id": order.id,
            "asked": dict(order.asked),
            "names": list(order.names),
        },
        "offset": list(order.canvas.offset) if order.canvas else None,
        "accepted": job.accepted,
        "folder": job.folder,
        "ready_at": job.ready_at,
        "word": job.word,
        "details": job.details,
        "settled": None if job.settled is None else str(job.settled),
        "once": job.idempotency,
        "inputs": list(job.inputs),
        "notice": asdict(job.webhook) if job.webhook else None,
    }


def _read(body: dict[str, Json], account: Account) -> TaskRecord:
    task, order = body["task"], body["order"]
    for name in ("cost", "input_mp", "output_mp"):
        task[name] = None if task[name] is None else Decimal(task[name])
    for name in ("options", "asked"):
        order[name] = {option: _plain(value) for option, value in order.get(name, {}).items()}
    order["names"] = tuple(order.get("names", ()))
    return TaskRecord(
        Task(**task),
        account,
        catalog.get_model(order["model"]),
        Order(**order, canvas=None if body["offset"] is None else Canvas(b"", None, tuple(body["offset"]))),
        float(body["accepted"]),
        body["folder"],
        None if body["ready_at"] is None else float(body["ready_at"]),
        body["word"],
        body["details"],
        settled=None if body["settled"] is None else Decimal(body["settled"]),
        idempotency=tuple(body["once"]) if body["once"] else None,
        webhook=_read_webhook(body["notice"]) if body["notice"] else None,
        inputs=tuple(body["inputs"]),
    )


def _read_webhook(body: dict[str, Json]) -> OutgoingWebhook:
    attempts = [DeliveryAttempt(float(attempt["at"]), attempt["outcome"]) for attempt in body["attempts"]]
    return OutgoingWebhook(body["url"], body["secret"], body["state"], attempts)


def _plain(value: Json) -> Json:
    return float(value) if isinstance(value, Decimal) else value
