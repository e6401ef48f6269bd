"""The questions of `fluxwerk conform`, asked of our own server in both dialects and of strange ones."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

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
from support.twisting import Answer, Twist, twisting

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


def compared(twist: Twist, group: str) -> list[suite.CheckResult]:
    """The answers of our own server with the twist, beside those without."""
    checks = suite.select([group])
    with loopback(accounts=Accounts([KEY])) as base, asking(base) as asker:
        ours = suite.run(checks, asker)
    with loopback(accounts=Accounts([KEY])) as base, twisting(base, twist) as wrong, asking(wrong) as asker:
        return suite.compare(suite.run(checks, asker), ours)


def _right(_: Answer) -> None:
    pass


def _json(answer: Answer) -> dict[str, Any]:
    found = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    return found if isinstance(found, dict) else {}


def _names_no_balance(answer: Answer) -> None:
    if answer.path == "/v1/credits" and answer.status == 200:
        answer.body = b'{"balance": 7}'


def _lets_anybody_in(answer: Answer) -> None:
    if answer.path == "/v1/credits" and answer.status in (401, 403):
        answer.status, answer.body = 200, b'{"credits": 7}'


def _finds_every_path(answer: Answer) -> None:
    if answer.status in (404, 405):
        answer.status = 200


def _answers_pages(answer: Answer) -> None:
    if answer.status == 404:
        answer.body, answer.headers["content-type"] = b"<html>404</html>", "text/html"


def _takes_what_is_invalid(answer: Answer) -> None:
    if answer.method == "POST" and answer.status == 422:
        answer.status = 418


def _tells_no_limits(answer: Answer) -> None:
    for name in [name for name in answer.headers if name.startswith("x-ratelimit")]:
        del answer.headers[name]


def _names_no_link(answer: Answer) -> None:
    found = _json(answer)
    if isinstance(found.get("result"), dict):
        found["result"]["url"] = found["result"].pop("sample", "")
        answer.body = json.dumps(found).encode()


def _asks_another_price(answer: Answer) -> None:
    found = _json(answer)
    if answer.method == "POST" and "cost" in found:
        answer.body = json.dumps(found | {"cost": 99}).encode()


def _delivers_another_image(answer: Answer) -> None:
    if answer.headers.get("content-type", "").startswith("image/"):
        picture = io.BytesIO()
        Image.new("RGB", (128, 96)).save(picture, "JPEG")
        answer.body, answer.headers["content-type"] = picture.getvalue(), "image/jpeg"


Names = set[str]
PATHS = {"unknown-path", "unknown-model", "get-instead-of-post"}
PEEKS = {"post-instead-of-get", "unknown-path-without-a-key"}


@pytest.mark.parametrize(
    ("twist", "group", "differing", "deviating"),
    [
        (_names_no_balance, "account", {"balance"}, {"balance"}),
        (_lets_anybody_in, "account", {"without-a-key", "unknown-key", "bearer-key"}, {"without-a-key"}),
        (_tells_no_limits, "account", {"limit-headers"}, set()),
        (_finds_every_path, "paths", PATHS | PEEKS, PATHS),
        (_answers_pages, "paths", {"unknown-path", "unknown-model"}, set()),
        (_names_no_link, "polls", {"result-fields"}, {"result-fields", "second-poll"}),
        (_asks_another_price, "money", {"cost-as-estimated", "final-cost"}, {"cost-as-estimated"}),
        (
            _delivers_another_image,
            "images",
            {"size-as-asked", "size-off-the-grid", "format-png"},
            {"size-as-asked", "format-png"},
        ),
    ],
)
def test_each_kind_of_wrong_answer_is_marked(twist: Twist, group: str, differing: Names, deviating: Names) -> None:
    results = compared(twist, group)

    assert {result.check.name for result in results if result.differs} == differing
    assert {result.check.name for result in results if result.mark is Mark.DEVIATES} == deviating


def test_every_refusal_with_a_wrong_status_is_marked() -> None:
    results = compared(_takes_what_is_invalid, "refusals")

    assert sum(result.mark is Mark.DEVIATES for result in results) > 15
    assert all(result.differs == ("418" in str(result.value)) for result in results)


def test_a_server_in_which_nothing_is_wrong_is_marked_nowhere() -> None:
    results = [result for group in ("account", "paths", "polls") for result in compared(_right, group)]

    assert [result.check.name for result in results if result.differs or result.mark is Mark.DEVIATES] == []
