"""The operator's page beyond this machine: only with the operator's key, and over any name of the server."""

from __future__ import annotations

from playwright.sync_api import expect

from support.browser import NEEDS, browsing, page_of
from support.process import process

pytestmark = NEEDS


def test_the_operator_enters_with_a_key_of_their_own():
    key = {"FLUXWERK_OPERATOR_KEY": "the-operator"}
    with process("--host", "0.0.0.0", "--allowed-host", "studio.test", environment=key) as (base, _):
        port = base.rpartition(":")[2]
        names = f"--host-resolver-rules=MAP studio.test 127.0.0.1:{port}"
        with browsing(names) as browser, page_of(browser, f"http://studio.test:{port}") as page:
            page.open("/ops")
            page.page.get_by_label("Operator key").fill("a-guess")
            page.page.get_by_role("button", name="Open").click()
            expect(page.page.locator("#key-wrong")).to_contain_text("not the operator")
            page.page.get_by_label("Operator key").fill("the-operator")
            page.page.get_by_role("button", name="Open").click()
            expect(page.page.locator(".plots")).to_be_visible()


def test_the_studio_works_where_browsers_trust_less():
    """Over plain http and another name than localhost a browser offers scripts no UUIDs and no clipboard."""
    with process("--host", "0.0.0.0", "--allowed-host", "studio.test") as (base, _):
        port = base.rpartition(":")[2]
        names = f"--host-resolver-rules=MAP studio.test 127.0.0.1:{port}"
        with browsing(names) as browser, page_of(browser, f"http://studio.test:{port}") as page:
            page.open()
            page.page.get_by_label("Key").fill("any-key")
            page.page.get_by_role("button", name="Connect").click()
            page.make("a heron")
            page.wait_for_images(1)
            assert page.page.evaluate("window.isSecureContext") is False


def test_a_name_that_is_bound_to_this_machine_by_a_stranger_opens_nothing():
    with process() as (base, _):
        names = f"--host-resolver-rules=MAP evil.test 127.0.0.1:{base.rpartition(':')[2]}"
        with browsing(names) as browser:
            context = browser.new_context()
            assert context.new_page().goto(f"http://evil.test:{base.rpartition(':')[2]}").status == 421
            context.close()
