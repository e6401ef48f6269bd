"""Many images from one file: a manifest is planned into a ledger, and a run makes and stores every image of it."""

from __future__ import annotations

from fluxwerk.batch.batch import Batch, BatchResult
from fluxwerk.batch.planner import Plan, plan

__all__ = ["Batch", "BatchResult", "Plan", "plan"]
