"""Making images in a real browser: the first one, many at once, and whatever can become of one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from threading import Event

import pytest
from PIL import Image
from playwright.sync_api import expect

from fluxwerk.engines import FullAbilities, RenderProgress
from fluxwerk.engines.codec import encode
from fluxwerk.server.loopback import loopback
from fluxwerk.testing.face_to_face import blank
from support.browser import NEEDS, page_of, studio
from support.process import process

pytestmark = NEEDS

LOST = """
[[rule]]
on = "submit"
do = "reset"
accepted = true
first = 1
"""


class Sketcher(FullAbilities):
    """An engine that shows a preview of an image, and makes it when it may go on."""

    name = "sketcher"

    def __init__(self):
        self.go = Event()

    @asynccontextmanager
    async def open(self):
        yield

    async def paint(self, order, report):
        report(RenderProgress(0.4, encode(Image.new("RGB", (32, 16), "#c33"), "jpeg")))
        await asyncio.to_thread(self.go.wait)
        return blank(order.width, order.height)


@pytest.fixture
def doubtful(browser, tmp_path):
    """The studio of a gateway before a service whose first answer is lost."""
    key, trouble = tmp_path / "key", tmp_path / "trouble.toml"
    key.write_text("the-gateways-own-key")
    key.chmod(0o600)
    trouble.write_text(LOST)
    with process("--trouble", trouble, "--no-idempotency") as (service, _):
        behind = ("--engine", "upstream", "--upstream", service, "--upstream-key-file", key)
        with studio(browser, *behind, "--key", "shop") as page:
            page.page.get_by_label("Key").fill("shop")
            page.page.get_by_role("button", name="Connect").click()
            yield page


def open_and_answer_again(page, answer_late, told) -> None:
    """Open the page, and answer its second question for the list so, which it asks when its first stream has ended."""

    def end_soon(route):
        page.page.route("**/v1/tasks?limit=100", answer_late, times=1)
        route.continue_(url=f"{route.request.url}?seconds=1")

    page.page.route("**/v1/events", end_soon, times=1)
    with page.page.expect_response(lambda answer: bool(told) and answer.url.endswith("/v1/tasks?limit=100")) as late:
        page.open()
    late.value.finished()
    page.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_first_image_is_made_from_a_prompt(page):
    page.make("A lighthouse on a basalt cliff")
    page.wait_for_images(1)
    shown = page.page.locator(".card.ready img")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640


def test_the_price_before_and_the_cost_after_are_those_of_the_guide(page):
    page.page.get_by_role("button", name="4 MP").click()
    page.page.wait_for_selector("[data-credits='7.5']")
    page.make("A quarry at dusk")
    page.wait_for_images(1)
    page.page.locator(".card.ready .open").click()
    assert page.page.locator("dl").get_by_text("7.5 credits").is_visible()


def test_eight_images_run_at_once_and_one_is_cancelled(browser):
    with studio(browser, "--seconds", "3") as page:
        page.make("Eight of them", 8)
        expect(page.page.locator(".card.pending[data-task]")).to_have_count(8)
        page.page.locator(".card.pending").last.get_by_role("button", name="Cancel").click()
        page.page.wait_for_selector(".card.ended:has-text('You cancelled it. It cost nothing.')")
        page.wait_for_images(7)


def test_a_reload_in_the_middle_of_a_run_loses_nothing(browser):
    with studio(browser, "--seconds", "2") as page:
        page.make("A harbour in fog", 2)
        page.page.wait_for_selector(".card.pending[data-task]")
        page.page.reload()
        page.wait_for_images(2)
        assert page.page.get_by_label("Prompt", exact=True).input_value() == "A harbour in fog"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("fluxwerk:request-moderated", "It cost nothing. Word the prompt differently"),
        ("fluxwerk:content-moderated", "It cost 3 credits. Word the prompt differently"),
        ("fluxwerk:error", "It cost nothing. Try again"),
    ],
)
def test_an_ending_without_an_image_says_what_it_cost(page, prompt, words):
    page.make(prompt)
    card = page.page.wait_for_selector(f".card.ended:has-text('{words}')")
    assert words in card.inner_text()


def test_without_credits_nothing_is_charged_and_the_page_says_so(browser):
    with studio(browser, "--key", "a-key", "--credits", "2") as page:
        page.page.get_by_label("Key").fill("a-key")
        page.page.get_by_role("button", name="Connect").click()
        page.make("A quarry at dusk")
        page.page.wait_for_selector(".card.ended:has-text('Out of credits')")
        assert "Nothing was charged" in page.page.locator(".card.ended").inner_text()


def test_a_size_that_is_typed_snaps_to_the_grid_of_the_model(page):
    page.page.get_by_label("Width in pixels").fill("1000")
    page.page.get_by_label("Height in pixels").fill("700")
    page.page.get_by_label("Height in pixels").press("Enter")
    expect(page.page.get_by_label("Width in pixels")).to_have_value("1008")
    expect(page.page.get_by_label("Height in pixels")).to_have_value("704")
    page.choose("FLUX1.1 [pro]")
    page.page.get_by_role("button", name="16:9").click()
    expect(page.page.get_by_label("Width in pixels")).to_have_value("1376")


def test_only_the_options_of_the_chosen_model_are_offered(page):
    page.page.get_by_text("More options of").click()
    expect(page.page.get_by_label("Steps")).to_have_count(0)
    page.choose("FLUX.2 [flex]")
    expect(page.page.get_by_label("Steps")).to_have_attribute("max", "50")
    expect(page.page.get_by_label("Guidance")).to_have_attribute("min", "1.5")


def test_advice_on_the_prompt_is_folded_away_and_can_be_applied(page):
    page.page.get_by_label("Prompt", exact=True).fill("a street without cars")
    page.page.locator(".advice summary").click()
    expect(page.page.locator(".advice li").first).to_be_visible()
    page.page.get_by_role("button", name="Make image").click()
    page.wait_for_images(1)


def test_each_piece_of_advice_is_applied_at_its_own_place(page):
    prompt = page.page.get_by_label("Prompt", exact=True)
    prompt.fill("😀 a fox, masterpiece, 8k, at dusk, --ar 16:9")
    page.page.locator(".advice summary").click()
    apply = page.page.locator(".advice li button")
    expect(apply).to_have_count(3)
    # At once, before the server has read the prompt again.
    page.page.evaluate("() => document.querySelector('.advice li button').click()")
    page.page.evaluate("() => document.querySelector('.advice li button').click()")
    expect(prompt).to_have_value("😀 a fox, at dusk, --ar 16:9")
    apply.first.click()
    expect(prompt).to_have_value("😀 a fox, at dusk,")


def test_a_preview_is_shown_until_the_image_is_there(browser):
    engine = Sketcher()
    with loopback(engine) as base, page_of(browser, base) as page:
        page.open()
        preview = page.page.locator(".card.pending .preview")
        held = []

        def ask_late(route):
            expect(preview).to_be_visible()
            held.append(route)
            route.continue_()

        # The answer to the submit's own question names no preview; once it is there, the page asks for the session.
        page.page.route("**/v1/tasks/*", ask_late, times=1)
        try:
            with page.page.expect_response(lambda answer: bool(held) and answer.url.endswith("/v1/session")):
                page.make("A lighthouse")
            expect(preview).to_be_visible()
            expect(page.page.locator(".card.pending")).to_contain_text("Running, 40 %")
            shown = preview.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        finally:
            engine.go.set()
        assert shown == [32, 16]
        page.wait_for_images(1)
        expect(page.page.locator(".preview")).to_have_count(0)


def test_an_image_that_is_there_stays_when_an_older_answer_comes_late(browser):
    engine = Sketcher()
    with loopback(engine) as base, page_of(browser, base) as page:
        page.open()
        told = []

        def answer_late(route):
            answer = route.fetch()
            with page.page.expect_response("**/v1/session"):
                engine.go.set()
            page.wait_for_images(1)
            told.append(answer.json()["stage"])
            route.fulfill(response=answer)

        # Once the submit has the answer to its own question, the page asks for the session.
        page.page.route("**/v1/tasks/*", answer_late, times=1)
        try:
            with page.page.expect_response(lambda answer: bool(told) and answer.url.endswith("/v1/session")):
                page.make("A lighthouse")
        finally:
            engine.go.set()
        assert told[0] != "ended"
        assert page.page.locator(".card.pending").count() == 0
        assert page.page.locator(".card.ready").count() == 1


@pytest.mark.parametrize(
    ("button", "words"),
    [
        ("Charged", "the operator found it charged. It cost 3 credits."),
        ("Not charged", "the operator found it not charged. It cost nothing."),
    ],
)
def test_an_image_in_doubt_is_not_offered_again_until_it_is_settled(doubtful, button, words):
    doubtful.make("A quarry at dusk")
    card = doubtful.page.locator(".card.ended")
    expect(card).to_contain_text("may have charged for this image")
    expect(card.get_by_role("button")).to_have_count(0)
    operator = doubtful.page.context.new_page()
    operator.goto(f"{doubtful.base}/ops")
    operator.get_by_role("button", name=button, exact=True).click()
    expect(operator.get_by_text("No submit is in doubt.")).to_be_visible()
    operator.close()
    expect(card).to_contain_text(words)
    card.get_by_role("button", name="Use this prompt again").click()
    doubtful.page.get_by_role("button", name="Make image").click()
    doubtful.wait_for_images(1)


def test_an_image_that_is_no_longer_kept_is_said_to_be_gone(browser):
    with studio(browser, "--keep", "2") as page:
        page.make("a heron for a moment")
        page.page.wait_for_selector(".card.ended:has-text('The server keeps images for 2 seconds')")
        page.page.get_by_role("button", name="Use this prompt again").click()
        expect(page.page.get_by_label("Prompt", exact=True)).to_have_value("a heron for a moment")


def test_an_image_that_arrives_while_the_page_asks_for_the_list_stays(page):
    told = []

    def answer_late(route):
        answer = route.fetch()
        page.make("A ferry")
        page.wait_for_images(1)
        told.append(answer.json()["tasks"])
        route.fulfill(response=answer)

    page.open("/page/icon.svg")
    open_and_answer_again(page, answer_late, told)
    assert told == [[]]
    assert page.page.locator(".card.ready").count() == 1


def test_an_image_that_is_deleted_stays_away_when_an_older_list_comes_late(page):
    page.open()
    page.make("A ferry")
    page.wait_for_images(1)
    told = []

    def answer_late(route):
        answer = route.fetch()
        page.page.locator(".card.ready .open").click()
        page.page.get_by_role("button", name="Delete", exact=True).click()
        page.page.get_by_role("button", name="Delete it for good").click()
        expect(page.page.locator(".card")).to_have_count(0)
        told.append(len(answer.json()["tasks"]))
        route.fulfill(response=answer)

    open_and_answer_again(page, answer_late, told)
    assert told == [1]
    assert page.page.locator(".card").count() == 0


def test_an_image_that_is_there_stays_when_an_older_list_comes_late(browser):
    engine = Sketcher()
    with loopback(engine) as base, page_of(browser, base) as page:
        told = []

        def answer_late(route):
            page.make("A lighthouse")
            expect(page.page.locator(".card.pending .preview")).to_be_visible()
            answer = route.fetch()
            engine.go.set()
            page.wait_for_images(1)
            told.extend(task["stage"] for task in answer.json()["tasks"])
            route.fulfill(response=answer)

        try:
            open_and_answer_again(page, answer_late, told)
        finally:
            engine.go.set()
        assert told == ["running"]
        assert page.page.locator(".card.pending").count() == 0
        assert page.page.locator(".card.ready").count() == 1


def test_a_task_that_waits_for_a_slot_shows_its_position(browser):
    with studio(browser, "--queue", "5", "--seconds", "30") as page:
        page.choose("FLUX.3 Image")
        page.make("more than five slots", 8)
        expect(page.page.locator(".card.pending:has-text('Queued at position 3')")).to_have_count(1)
