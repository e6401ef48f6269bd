"""Jobs by what a person asks for: those of a tag, and the images that were made last."""

from __future__ import annotations

from fluxwerk.ledger.database import Database, Row
from fluxwerk.ledger.job import Stage

TAGGED = "select * from jobs where tag = :tag and sheet in (select id from sheets where opened is not null) order by id"
LATEST = "select * from jobs where stage = :stage and (:model is null or model = :model) order by id desc limit :most"


def tagged(database: Database, tag: str) -> list[Row]:
    """List the jobs of a tag, in the order of their numbers."""
    with database.read() as transaction:
        return transaction.all(TAGGED, tag=tag)


def latest(database: Database, most: int, model: str | None = None) -> list[Row]:
    """List the images that were saved last, the newest first."""
    with database.read() as transaction:
        return transaction.all(LATEST, stage=Stage.SAVED, model=model, most=most)
