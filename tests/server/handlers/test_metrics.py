"""Counts for Prometheus: what is documented is there, and nothing names who asked for what."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fluxwerk import AsyncClient
from fluxwerk.engines import RenderProgress
from fluxwerk.engines.upstream.engine import UpstreamEngine
from fluxwerk.server.state import keys
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.application import Application
from fluxwerk.server.state.store import MemoryStore
from fluxwerk.server.state.upstream import LONGEST_TASK, RowJournal
from fluxwerk.testing import FaceToFace
from fluxwerk.types import Pool
from support.asking import ask, face, json_of, post, submit_and_fetch

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def samples(of: FaceToFace) -> dict[str, float]:
    """Return every sample by its name and labels, as Prometheus reads them."""
    text = ask(of, "GET", "/metrics", key=None).body.decode()
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_what_happened_and_name_nobody():
    of = face(seconds=5)
    post(of, {"prompt": "CANARY"}, key="CANARY-key")
    post(of, {"prompt": "fluxwerk:error"})
    post(of, {})
    of.clock.sleep(5)
    post(of, {"prompt": "x"})
    answer = ask(of, "GET", "/metrics", key=None)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "CANARY" not in answer.body.decode()
    found = samples(of)
    assert {name: found[name] for name in found if name.startswith(("fluxwerk_tasks", "fluxwerk_accepted_total"))} == {
        "fluxwerk_tasks{status=Ready}": 1,
        "fluxwerk_tasks{status=Error}": 1,
        "fluxwerk_tasks{status=Pending}": 1,
        "fluxwerk_accepted_total{model=flux-2-pro}": 3,
    }
    assert found["fluxwerk_refused_total{status=422}"] == 1
    assert found["fluxwerk_ended_total{status=Ready}"] == 2
    assert found["fluxwerk_slots_used{key=other,pool=standard}"] == 1
    assert found["fluxwerk_render_seconds_count{model=flux-2-pro}"] == 2


def test_an_application_is_told_by_its_name():
    of = face(seconds=5, accounts=Accounts(queue=5))
    key = keys.make()
    of.state.accounts.applications.add(Application("shop", slots=2, budget=Decimal(100)), keys.describe(key))
    for _ in range(3):
        post(of, {"prompt": "x"}, key=key)
    found = samples(of)
    assert found["fluxwerk_slots_used{key=shop,pool=standard}"] == 2
    assert found["fluxwerk_slots_free{key=shop,pool=standard}"] == 0
    assert found["fluxwerk_slots_free{key=shop,pool=flux-kontext-max}"] == 2
    assert found["fluxwerk_spend_credits{key=shop,model=flux-2-pro}"] == 9
    assert found["fluxwerk_queue_depth{model=flux-2-pro,stage=waiting}"] == 1


def test_a_render_is_timed_from_its_beginning():
    of = face()
    of._stop_working()
    post(of, {"prompt": "x"})
    job = of.state.claim()
    of.clock.sleep(10)
    of.state.advance(job, RenderProgress(0.0))
    of.clock.sleep(3)
    of.state.advance(job, RenderProgress(0.5))
    of.state.finish(job, b"picture")
    found = samples(of)
    assert found["fluxwerk_render_seconds_sum{model=flux-2-pro}"] == 3
    assert found["fluxwerk_render_seconds_bucket{le=2.5,model=flux-2-pro}"] == 0
    assert found["fluxwerk_render_seconds_bucket{le=5,model=flux-2-pro}"] == 1


def test_slots_at_the_service_are_told_by_account_and_pool():
    of = face(abilities=gateway("ours"))
    of._stop_working()
    first, second = (json_of(post(of, {"prompt": "x"}))["id"] for _ in range(2))
    for account, task in (("ours", first), ("theirs", second)):
        of.state.begin(task)
        journal = RowJournal(of.state.store, of.clock.now, service=account)
        asyncio.run(journal.find(task))
        assert asyncio.run(journal.intend(task, Pool("standard", 24)))
    found = samples(of)
    for account in ("ours", "theirs"):
        assert found[f"fluxwerk_upstream_slots_used{{account={account},pool=standard}}"] == 1
        assert found[f"fluxwerk_upstream_slots_used{{account={account},pool=flux-kontext-max}}"] == 0
        assert found[f"fluxwerk_upstream_slots_limit{{account={account},pool=standard}}"] == 24
        assert found[f"fluxwerk_upstream_slots_limit{{account={account},pool=flux-kontext-max}}"] == 6
    of.clock.sleep(LONGEST_TASK + 1)
    later = samples(of)
    assert later["fluxwerk_upstream_slots_used{account=ours,pool=standard}"] == 0
    assert "fluxwerk_upstream_slots_used{account=theirs,pool=standard}" not in later


def gateway(account: str) -> UpstreamEngine:
    """Make an engine that is asked for nothing but its names."""
    client = AsyncClient("a-key", base_url="http://127.0.0.1:9")
    return UpstreamEngine(client, RowJournal(MemoryStore(), service=account))


def test_every_name_is_documented_and_every_documented_name_is_there():
    of = face(accounts=Accounts(queue=5))
    submit_and_fetch(of)
    text = ask(of, "GET", "/metrics", key=None).body.decode()
    told = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert told == set(re.findall(r"^\| `(fluxwerk_\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
