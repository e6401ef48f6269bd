"""How an image is kept: under its name, with its origin, whole or not at all, and over nothing that was there."""

from __future__ import annotations

import hashlib
from typing import Any

from fluxwerk import imagefile
from fluxwerk.batch.provenance import SIDECAR_SUFFIX, embed, origin, write_sidecar
from fluxwerk.batch.template import DEFAULT_TEMPLATE, beside, check_template, file_name
from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.ledger.job import Job
from fluxwerk.ledger.ledger import Saved
from fluxwerk.storage import Storage
from fluxwerk.types import Status

PROVENANCE = ("sidecar", "embed", "none")
HASH_DIGITS = 12


class Saver:
    """Stores images by a name template; `provenance` is sidecar, embed or none.

    A name that is taken by other bytes is left alone, and the image gets a number: an image that was paid for is
    never lost to a name.
    """

    def __init__(
        self,
        storage: Storage,
        template: str = DEFAULT_TEMPLATE,
        *,
        provenance: str = "sidecar",
        prompts: bool = True,
        overwrite: bool = False,
    ) -> None:
        if provenance not in PROVENANCE:
            raise InvalidUsageError(
                "", faults=[Fault("provenance", provenance, f"must be one of {', '.join(PROVENANCE)}")]
            )
        self._storage = storage
        self._template = check_template(template, overwrite=overwrite)
        self._provenance = provenance
        self._prompts = prompts
        self._overwrite = overwrite

    def check(self) -> None:
        """Prove that images can be stored; raises `InvalidUsageError` or `StorageError`."""
        self._storage.check()

    def check_job(self, job: Job) -> None:
        """Refuse a job whose image could never get its name; raises `InvalidUsageError`."""
        name = file_name(self._template, self._facts(job, job.fields.get("seed"), "png"), job.output)
        # A name that the template makes in the folder itself meets neither a link nor a file on its way.
        if job.output is not None or "/" in name:
            self._storage.check_name(name)

    def save(self, job: Job, status: Status, data: bytes) -> Saved:
        """Store one image; raises `StorageError`, after which it may be tried again."""
        facts = origin(job, status, prompts=self._prompts)
        inside = embed(data, facts) if self._provenance == "embed" else None
        whole = inside or data
        name, address = self._put(self._name(job, status, data), whole)
        if self._provenance != "none" and inside is None:
            self._storage.put(name + SIDECAR_SUFFIX, write_sidecar(facts), overwrite=True)
        return Saved(address, hashlib.sha256(whole).hexdigest())

    def _name(self, job: Job, status: Status, data: bytes) -> str:
        found = imagefile.measure(data)
        assert found is not None, "a download is measured before it counts"
        seed = job.fields.get("seed") if status.seed is None else status.seed
        facts = self._facts(job, seed, imagefile.SUFFIX[found.content_type])
        return file_name(self._template, facts, job.output)

    @staticmethod
    def _facts(job: Job, seed: int | None, suffix: str) -> dict[str, Any]:
        return {
            "index": job.id,
            "line": job.line,
            "item": job.item,
            "model": job.model,
            "seed": "none" if seed is None else seed,
            "tag": job.tag or "none",
            "hash": job.hash[:HASH_DIGITS],
            "ext": suffix,
        }

    def _put(self, wanted: str, data: bytes) -> tuple[str, str]:
        """Store under the wanted name, or beside it; bytes that are there already were saved before a crash."""
        name, number = wanted, 1
        while True:
            try:
                return name, self._storage.put(name, data, overwrite=self._overwrite)
            except FileExistsError:
                if self._storage.get(name) == data:
                    return name, self._storage.put(name, data, overwrite=True)
                number += 1
                name = beside(wanted, number)
