"""The page of a batch: a small copy of every image, every failure, and nothing that could run or load."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluxwerk.batch import plan
from fluxwerk.batch.sheet import Card, cards, page
from fluxwerk.errors import TaskFailedError
from fluxwerk.ledger.ledger import Ledger, Saved
from fluxwerk.storage import open_storage
from support.jobs import BASE, status, task
from support.needed import is_required

NASTY = '<script>alert(1)</script>" onload="x" &amp; \' ]]>'
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def picture(size=(600, 400), colour="red", kind="PNG"):
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, kind)
    return written.getvalue()


def carried(folder, prompt="a fox", reason="moderation stopped it", image=None):
    """A ledger with a saved image, a failure, a job in doubt and one that is planned."""
    ledger = Ledger.open(":memory:")
    plan(ledger, [{"prompt": f"{prompt} {number}", "tag": "foxes"} for number in range(4)])
    worker = ledger.leases.register(1000)
    saved, failed, doubtful = ledger.submitting(worker, 3, BASE).jobs
    accepted = ledger.submitted(saved, task())
    path = folder / "00001.png"
    path.write_bytes(picture() if image is None else image)
    ledger.saved(ledger.ready(accepted, status(accepted)), Saved(str(path), "ab"))
    ledger.refused(failed, TaskFailedError(reason))
    ledger.doubted(doubtful, "the answer was lost")
    return ledger


def written(ledger, **given):
    return b"".join(page("prompts", ledger.budget.sums(), cards(ledger, **given))).decode()


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def named(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def test_every_job_that_has_ended_has_a_card(tmp_path):
    found = list(cards(carried(tmp_path)))
    assert [(card.job, card.stage, bool(card.copy)) for card in found] == [
        (1, "saved", True),
        (2, "failed", False),
        (3, "in doubt", False),
    ]
    assert (found[0].prompt, found[0].seed, found[0].cost, found[0].tag) == ("a fox 0", 7, 3, "foxes")
    assert found[1].reason == "moderation stopped it"


def test_the_page_shows_them_with_their_sums(tmp_path):
    elements, text = Elements(written(carried(tmp_path))), written(carried(tmp_path))
    assert [one["data-stage"] for one in elements.named("figure")] == ["saved", "failed", "in doubt"]
    assert "seed 7 · 3 credits · foxes" in text
    assert "1 planned, 1 saved, 1 failed, 1 in doubt; 3 credits spent." in text


def test_prompts_can_be_left_out(tmp_path):
    assert "a fox" not in written(carried(tmp_path), prompts=False)


@pytest.mark.parametrize("place", ["prompt", "reason"])
def test_what_came_from_outside_stays_text(tmp_path, place):
    plain, nasty = written(carried(tmp_path)), written(carried(tmp_path, **{place: NASTY}))
    shape = [tag for tag, _ in Elements(plain).found]
    assert [tag for tag, _ in Elements(nasty).found] == shape
    assert {name for _, attrs in Elements(nasty).found for name in attrs} == {
        name for _, attrs in Elements(plain).found for name in attrs
    }


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_no_text_makes_an_element(prompt, path, reason):
    sums = Ledger.open(":memory:").budget.sums()
    card = Card(1, 1, "failed", "m", prompt, path, 1, None, path, reason)
    shown = b"".join(page("x", sums, [card])).decode()
    empty = b"".join(page("x", sums, [Card(1, 1, "failed", "m", "", "t", 1, None, "", "")])).decode()
    assert [tag for tag, _ in Elements(shown).found] == [tag for tag, _ in Elements(empty).found]


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    elements = Elements(written(carried(tmp_path)))
    sources = [attrs[name] for _, attrs in elements.found for name in ("src", "href") if name in attrs]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    policy = elements.named("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_no_signed_link_is_shown(tmp_path):
    reason = "https://delivery.bfl.ai/a.png?sig=CANARY could not be fetched"
    assert "CANARY" not in written(carried(tmp_path, reason=reason))


def test_an_image_that_is_gone_leaves_its_facts(tmp_path):
    ledger = carried(tmp_path)
    (tmp_path / "00001.png").unlink()
    assert next(cards(ledger)).copy == b""


def test_an_image_elsewhere_is_read_from_its_storage(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    ledger = carried(tmp_path)
    with ledger.database.write() as transaction:
        transaction.run("update jobs set path = 's3://bucket/images/a.png' where stage = 'saved'")
    assert next(cards(ledger)).copy == b""
    assert next(cards(ledger, open_storage(tmp_path), root="s3://bucket/images/")).copy


@pytest.mark.skipif(
    not BROWSER and not is_required("browser"), reason="no Chromium is installed; apt-get install chromium"
)
def test_the_filter_runs_in_a_browser_under_its_policy(tmp_path):
    file = tmp_path / "sheet.html"
    file.write_text(written(carried(tmp_path)))
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([BROWSER, *words, file.as_uri()], capture_output=True, text=True, timeout=60, check=False)
    assert re.search(r"<output[^>]*>3 of 3</output>", done.stdout), done.stderr[-500:]
