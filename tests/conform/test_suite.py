"""The questions of `fluxwerk conform`, asked of our own server in both dialects and of strange ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fluxwerk.catalog.rows import get_model
from fluxwerk.client.client import Client
from fluxwerk.conform import report, suite
from fluxwerk.conform.asker import Asker
from fluxwerk.conform.receiver import receiving
from fluxwerk.conform.suite import Mark
from fluxwerk.drive import WALL
from fluxwerk.server.errors import Dialect
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback

KEY = "a-key-that-no-report-shows"
KLEIN = get_model("flux-2-klein-4b")
PLENTY = Decimal(1000)
HOME = "127.0.0.1"


@contextmanager
def asking(base: str, cap: Decimal = PLENTY) -> Iterator[Asker]:
    with receiving(HOME, 0) as (port, calls), Client(KEY, base_url=base) as client:
        prompt = "fluxwerk:request-moderated"
        yield Asker(
            client, KLEIN, cap, WALL, webhook=f"http://{HOME}:{port}/hook", calls=calls, moderated_prompt=prompt
        )


@pytest.mark.parametrize("dialect", ["live", "guide"])
def test_our_own_server_answers_every_question_as_documented(dialect: Dialect) -> None:
    books = Accounts([KEY])
    with loopback(accounts=books, dialect=dialect) as base, asking(base) as asker:
        results = suite.run(suite.select(), asker)
        spent = sum((job.task.cost or Decimal(0) for job in books.tasks.all(0.0)), Decimal(0))

    wrong = {result.check.name: result.value for result in results if result.mark in (Mark.DEVIATES, Mark.FAILED)}
    assert wrong == {}
    assert len(results) >= 60
    assert {result.mark for result in results} == {Mark.FITS, Mark.OBSERVED}
    assert asker.spent >= spent, "what was bought is never told too low"


def test_two_servers_of_ours_do_not_differ() -> None:
    def asked() -> list[suite.CheckResult]:
        with loopback(accounts=Accounts([KEY])) as base, asking(base) as asker:
            return suite.run(suite.select(), asker)

    assert [result.check.name for result in suite.compare(asked(), asked()) if result.differs] == []


def test_where_a_server_answers_otherwise_it_is_marked() -> None:
    checks = suite.select(["account", "money"])
    with loopback(accounts=Accounts([KEY])) as base, asking(base) as asker:
        ours = suite.run(checks, asker)
    with loopback(accounts=Accounts([KEY]), keeps_keys=True) as base, asking(base) as asker:
        results = suite.compare(suite.run(checks, asker), ours)

    assert {result.check.name for result in results if result.differs} == {"idempotency-promise", "same-key-twice"}
    assert "2 differ from our server" in report.summary(results)


@pytest.mark.parametrize("cap", [0, 1.4, 5, 25])
def test_no_more_is_bought_than_the_cap_allows(cap: float) -> None:
    books = Accounts([KEY])
    with loopback(accounts=books) as base, asking(base, Decimal(str(cap))) as asker:
        results = suite.run(suite.select(), asker)
        spent = sum((job.task.cost or Decimal(0) for job in books.tasks.all(0.0)), Decimal(0))

    assert spent <= Decimal(str(cap))
    assert any(result.mark is Mark.SKIPPED for result in results)


def test_the_estimate_is_what_the_questions_cost_at_most() -> None:
    checks = suite.select(["polls"])
    books = Accounts([KEY])
    with loopback(accounts=books) as base, asking(base) as asker:
        suite.run(checks, asker)

    assert suite.estimate(checks, KLEIN) == Decimal("1.4")
    assert len(books.tasks.all(0.0)) == 1


class Strange(BaseHTTPRequestHandler):
    """Answers everything with the same HTML page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    do_POST = do_HEAD = do_GET  # noqa: N815  (the library's names)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_speaks_another_language_is_asked_to_the_end() -> None:
    with ThreadingHTTPServer((HOME, 0), Strange) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with asking(f"http://{HOME}:{server.server_port}", Decimal(3)) as asker:
            checks = suite.select(["account", "paths", "refusals"])
            results = suite.run(checks, asker)
        server.shutdown()

    assert len(results) == len(checks)
    assert {result.mark for result in results} >= {Mark.DEVIATES, Mark.SKIPPED}


def test_a_report_shows_neither_the_key_nor_a_signature() -> None:
    with loopback(accounts=Accounts([KEY])) as base, asking(base) as asker:
        results = suite.run(suite.select(["account", "polls", "links"]), asker)
        link = asker.shared().link
    written = report.to_json(results, {"server": "http://127.0.0.1"})
    everything = report.to_markdown(written) + repr(written) + "".join(map(report.line_of, results))

    assert KEY not in everything
    assert link.split("sig=")[1][:20] not in everything
    assert asker.shared().submitted["id"] not in everything
