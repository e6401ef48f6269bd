from __future__ import annotations

from pathlib import Path

import pytest

from fluxwerk import errors
from fluxwerk.batch import plan
from fluxwerk.ledger import migrations
from fluxwerk.ledger.database import SQLiteDatabase
from fluxwerk.ledger.failure import FailureKind
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.ModerationError("no"), "moderated"),
        (errors.TaskNotFoundError("no"), "task_not_found"),
        (errors.TaskFailedError("no"), "task_failed"),
        (errors.TaskTimeoutError("no"), "timed_out"),
        (errors.LinkExpiredError("no"), "link_expired"),
        (errors.UntrustedURLError("no"), "untrusted_url"),
        (errors.InvalidRequestError("no"), "rejected"),
        (errors.UnknownModelError("no"), "invalid"),
        (errors.InDoubtError("no"), "in_doubt"),
        (errors.StorageError("no"), "other"),
    ],
)
def test_every_error_has_a_word_that_stays_when_classes_are_renamed(error: errors.FluxwerkError, kind: str):
    assert FailureKind.of(error) == kind


@pytest.mark.parametrize(
    ("written", "kind", "stage"),
    [
        ("Moderated", "moderated", Stage.PLANNED),
        ("ModerationError", "moderated", Stage.PLANNED),
        ("Failed", "task_failed", Stage.PLANNED),
        ("TimedOut", "timed_out", Stage.SUBMITTED),
        ("NotAllowed", "rejected", Stage.SUBMITTED),
        ("Unheard", "other", Stage.SUBMITTED),
    ],
)
def test_a_ledger_of_version_1_opens_and_retries_as_it_did(tmp_path: Path, written: str, kind: str, stage: Stage):
    path = tmp_path / "a.ledger"
    database = SQLiteDatabase(path)
    assert migrations.prepare(database, migrations.read_migrations()[:1]) == 1
    old = Ledger(database)
    plan(old, [{"prompt": "a fox"}])
    with database.write() as transaction:
        transaction.run("update jobs set stage = 'failed', kind = :kind, task = 'task-1'", kind=written)
        transaction.run("update tally set stage = 'failed'")
    old.close()

    with Ledger.open(path) as ledger:
        assert ledger.row(1)["kind"] == kind
        assert ledger.retry(1).stage is stage
