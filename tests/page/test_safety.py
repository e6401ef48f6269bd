"""Keys, cookies, foreign pages, and servers that go away."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import expect

from support.browser import NEEDS, page_of, studio
from support.process import process

pytestmark = NEEDS

# Whatever a foreign page may try: each resolves to what it learned or to the name of the error.
TRIES = """async ([base, body]) => {
  const attempt = async (path, init) => {
    try { const answer = await fetch(base + path, { credentials: "include", ...init }); return answer.status; }
    catch (error) { return error.name; }
  };
  return [
    await attempt("/v1/tasks", {}),
    await attempt("/v1/flux-2-pro", { method: "POST", body, mode: "no-cors" }),
    await attempt("/v1/flux-2-pro", { method: "POST", body, headers: { "content-type": "application/json" } }),
    await attempt("/v1/session", { method: "POST", body: "{}", mode: "no-cors" }),
  ];
}"""


@pytest.fixture
def foreign():
    """Another web server of this machine, with an empty page."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_key_is_asked_for_once_and_no_script_can_read_it(browser):
    with studio(browser, "--key", "a-secret-key") as page:
        page.page.get_by_label("Key").fill("a-wrong-key")
        page.page.get_by_role("button", name="Connect").click()
        expect(page.page.locator("#key-wrong")).to_contain_text("unknown or revoked")
        page.page.get_by_label("Key").fill("a-secret-key")
        page.page.get_by_role("button", name="Connect").click()
        page.make("A quarry")
        page.wait_for_images(1)
        page.page.reload()
        page.wait_for_images(1)
        found = page.page.evaluate(
            "() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
            " + document.documentElement.outerHTML + location.href"
        )
        assert "a-secret-key" not in found
        assert not any("a-secret-key" in url for url in page.requests)
        page.page.get_by_role("button", name="Sign out").click()
        expect(page.page.get_by_label("Key")).to_be_visible()


def test_a_foreign_page_reads_nothing_and_changes_nothing(browser, page, foreign):
    body = json.dumps({"prompt": "not asked for", "width": 64, "height": 64})
    stranger = page.page.context.new_page()
    stranger.goto(foreign)
    assert stranger.evaluate(TRIES, [page.base, body])[0] == "TypeError"
    answer = page.page.request.get(f"{page.base}/v1/tasks")
    assert answer.json()["tasks"] == []
    stranger.close()


def test_no_foreign_page_frames_the_studio(page, foreign):
    stranger = page.page.context.new_page()
    stranger.goto(foreign)
    framed = "url => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }"
    with stranger.expect_event("console", lambda message: "frame" in message.text.lower()):
        stranger.evaluate(framed, page.base)
    stranger.close()


def test_words_from_elsewhere_are_shown_as_words(page):
    prompt = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    page.make(prompt)
    page.wait_for_images(1)
    expect(page.page.locator(".group-prompt")).to_have_text(prompt)
    assert page.page.title() == "fluxwerk studio"


def test_a_server_that_goes_and_comes_back_loses_nothing_and_bills_once(browser, tmp_path):
    options = ("--state", tmp_path / "state", "--key", "k", "--credits", "100")
    with process(*options) as (base, running), page_of(browser, base) as page:
        port = base.rpartition(":")[2]
        page.page.on("console", lambda _: None)
        page.open()
        page.page.get_by_label("Key").fill("k")
        page.page.get_by_role("button", name="Connect").click()
        page.make("before it went")
        page.wait_for_images(1)
        running.kill()
        running.wait()
        expect(page.page.locator(".banner")).to_be_visible()
        page.make("while it was away")
        expect(page.page.locator("[data-sending='unanswered']")).to_be_visible()
        with process(*options, "--port", port):
            page.wait_for_images(2)
            expect(page.page.locator(".banner")).to_have_count(0)
            assert page.page.request.get(f"{base}/v1/session").json()["credits"] == 94
        page.complaints.clear()


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_submit_whose_answer_a_proxy_lost_is_sent_again_and_billed_once(page, status):
    lost = []

    def lose(route):
        lost.append(route.fetch())
        route.fulfill(status=status, body="<h1>bad gateway</h1>")

    page.page.route("**/v1/flux-2-*", lose, times=1)
    page.make("A canal")
    page.wait_for_images(1)
    expect(page.page.locator("[data-sending]")).to_have_count(0)
    assert len(lost) == 1
    assert len(page.page.request.get(f"{page.base}/v1/tasks").json()["tasks"]) == 1
    page.complaints.clear()


def test_a_server_that_goes_while_the_page_loads_is_found_again(browser, tmp_path):
    with process("--state", tmp_path / "state") as (base, running), page_of(browser, base) as page:

        def cut(route):
            running.kill()
            running.wait()
            route.continue_()

        page.page.route("**/v1/models", cut, times=1)
        page.page.goto(base, wait_until="commit")
        expect(page.page.locator(".banner")).to_be_visible()
        with process("--state", tmp_path / "state", "--port", base.rpartition(":")[2]):
            expect(page.page.locator(".banner")).to_have_count(0)
            page.make("A ferry")
            page.wait_for_images(1)
        page.complaints.clear()


def test_a_server_that_goes_while_a_key_is_connected_is_found_again(browser):
    with studio(browser, "--key", "k") as page:
        page.page.get_by_label("Key").fill("k")
        page.page.route("**/v1/models", lambda route: route.abort())
        page.page.get_by_role("button", name="Connect").click()
        expect(page.page.locator(".banner")).to_be_visible()
        page.page.unroute("**/v1/models")
        expect(page.page.locator(".banner")).to_have_count(0)
        page.make("A ferry")
        page.wait_for_images(1)


def test_a_server_that_is_back_asks_for_the_key_without_the_banner(browser):
    with process("--key", "k") as (base, _), page_of(browser, base) as page:
        page.page.route("**/v1/session", lambda route: route.fulfill(status=502, body="<h1>Away</h1>"))
        page.open()
        expect(page.page.locator(".banner")).to_be_visible()
        page.page.unroute("**/v1/session")
        expect(page.page.get_by_label("Key")).to_be_visible()
        expect(page.page.locator(".banner")).to_have_count(0)
        page.complaints.clear()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_a_proxy_finds_away_is_found_again(browser, server, status):
    with page_of(browser, server) as page:
        page.page.route("**/v1/session", lambda route: route.fulfill(status=status, body="<h1>Away</h1>"))
        page.open()
        expect(page.page.locator(".banner")).to_be_visible()
        page.page.unroute("**/v1/session")
        expect(page.page.locator(".banner")).to_have_count(0)
        page.make("A ferry")
        page.wait_for_images(1)
