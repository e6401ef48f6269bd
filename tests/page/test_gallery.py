"""The gallery: found again, opened, compared, taken along and deleted."""

from __future__ import annotations

import re

import httpx2
import pytest
from playwright.sync_api import expect

from support.asking import PRO
from support.browser import NEEDS, page_of
from support.process import process

pytestmark = NEEDS
STUDIO = {"x-key": "studio"}
# What the page puts off for a frame, as it does with news, is kept until the test lets it run.
HOLD_FRAMES = """() => {
  const later = window.setTimeout;
  window.held = [];
  window.setTimeout = (work, after, ...rest) => (after === 16 ? window.held.push(work) : later(work, after, ...rest));
}"""


@pytest.fixture(scope="module")
def filled():
    """A server with the images of six prompts."""
    with process() as (base, _):
        for number, prompt in enumerate(("red fox", "red heron", "blue heron", "grey owl", "white owl", "black swan")):
            path = "/v1/flux-2-max" if number == 3 else PRO
            body = {"prompt": prompt, "width": 256, "height": 256, "seed": number}
            submitted = httpx2.post(base + path, json=body, headers=STUDIO).json()
            while httpx2.get(submitted["polling_url"]).json()["status"] == "Pending":
                pass
        yield base


@pytest.fixture
def gallery(browser, filled):
    with page_of(browser, filled, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.open("/#/gallery")
        expect(page.page.locator(".grid .card")).to_have_count(6)
        yield page


def test_images_are_found_by_words_and_by_model(gallery):
    gallery.page.get_by_label("Search the prompts").fill("heron")
    expect(gallery.page.locator(".grid .card")).to_have_count(2)
    gallery.page.get_by_label("Search the prompts").fill("")
    gallery.page.get_by_label("Model").select_option("flux-2-max")
    expect(gallery.page.locator(".grid .card")).to_have_count(1)


def test_a_day_without_images_is_empty(gallery):
    gallery.page.get_by_label("Day").fill("2020-01-01")
    expect(gallery.page.locator(".empty")).to_have_text("No image fits this search.")


def test_an_image_opens_with_what_it_was_made_of(gallery):
    gallery.page.get_by_role("button", name="Open: grey owl").click()
    facts = gallery.page.locator(".viewer dl")
    for words in ("FLUX.2 [max]", "256 × 256", "Seed3", "7 credits"):
        expect(facts).to_contain_text(words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cURL", "curl 'http"),
        ("Python", 'model="flux-2-pro"'),
        ("TypeScript", "await fetch("),
        ("CLI", "fluxwerk generate 'red fox'"),
    ],
)
def test_a_request_is_copied_for_other_places(gallery, name, words):
    gallery.page.get_by_role("button", name="Open: red fox").click()
    gallery.page.get_by_role("tab", name=name).click()
    gallery.page.get_by_role("button", name="Copy", exact=True).click()
    expect(gallery.page.locator(".toast")).to_have_text(f"Copied as {name}.")
    copied = gallery.page.evaluate("() => navigator.clipboard.readText()")
    assert words in copied
    assert "seed" in copied


def test_the_arrow_keys_go_from_image_to_image_and_escape_goes_back(gallery):
    gallery.page.get_by_role("button", name="Open: white owl").click()
    expect(gallery.page.locator(".full-prompt")).to_have_text("white owl")
    gallery.page.keyboard.press("ArrowRight")
    expect(gallery.page.locator(".full-prompt")).to_have_text("grey owl")
    gallery.page.keyboard.press("Escape")
    expect(gallery.page.locator(".viewer")).to_have_count(0)
    assert gallery.page.url.endswith("#/gallery")


@pytest.mark.parametrize(("action", "seed", "count"), [("Again", "", "1"), ("Same seed", "1", "1"), ("Vary", "", "4")])
def test_an_image_is_taken_up_again(gallery, action, seed, count):
    gallery.page.get_by_role("button", name="Open: red heron").click()
    gallery.page.get_by_role("button", name=action).click()
    expect(gallery.page.get_by_label("Prompt", exact=True)).to_have_value("red heron")
    expect(gallery.page.get_by_label("Seed", exact=True)).to_have_value(seed)
    expect(gallery.page.locator(".stepper output")).to_have_text(count)


def test_an_image_becomes_a_reference(gallery):
    gallery.page.get_by_role("button", name="Open: red heron").click()
    gallery.page.get_by_role("button", name="Use as reference").click()
    expect(gallery.page.locator(".tile-size")).to_have_text("256 × 256")


def test_two_images_are_compared_with_a_slider(gallery):
    gallery.page.get_by_role("button", name="Open: red heron").click()
    gallery.page.get_by_role("button", name="Compare").click()
    slider = gallery.page.get_by_label("How much of the first image is shown")
    slider.press("Home")
    shown = gallery.page.locator(".before").evaluate("image => getComputedStyle(image).clipPath")
    assert "100%" in shown
    slider.press("End")
    assert gallery.page.locator(".before").evaluate("image => getComputedStyle(image).clipPath") != shown


def test_a_selection_is_saved_as_a_zip_and_as_a_sheet(gallery):
    gallery.page.get_by_role("button", name="Select", exact=True).click()
    gallery.page.get_by_role("button", name=re.compile("Select: red")).first.click()
    gallery.page.get_by_role("button", name=re.compile("Select: blue")).click()
    for name, suffix in (("ZIP", ".zip"), ("Contact sheet", ".jpg")):
        with gallery.page.expect_download() as saved:
            gallery.page.get_by_role("link", name=name).click()
        assert saved.value.suggested_filename.endswith(suffix)


def test_an_image_is_deleted_only_when_it_is_said_twice(page):
    page.make("a fox that will go")
    page.wait_for_images(1)
    page.page.locator(".card.ready .open").click()
    page.page.get_by_role("button", name="Delete", exact=True).click()
    page.page.get_by_role("button", name="Delete it for good").click()
    expect(page.page.locator(".toast")).to_have_text("Deleted.")
    expect(page.page.locator(".card")).to_have_count(0)
    page.page.reload()
    expect(page.page.locator(".welcome")).to_be_visible()


def test_an_image_that_is_deleted_before_its_news_are_shown_leaves_nothing(page):
    page.make("a fox that will go")
    page.wait_for_images(1)
    page.page.evaluate("() => (location.hash = '#/gallery')")
    page.page.locator(".grid .card.ready .open").click()
    page.page.evaluate(HOLD_FRAMES)

    def answer_late(route):
        answer = route.fetch()
        page.page.wait_for_function("() => window.held.length")
        route.fulfill(response=answer)

    page.page.route("**/v1/tasks/*/image", answer_late, times=1)
    page.page.get_by_role("button", name="Delete", exact=True).click()
    page.page.get_by_role("button", name="Delete it for good").click()
    expect(page.page.locator(".empty")).to_contain_text("No images yet.")
    page.page.evaluate("() => window.held.forEach((work) => work())")
    expect(page.page.locator(".empty")).to_contain_text("No images yet.")
    assert page.complaints == []


def test_an_image_is_tagged_and_found_by_its_tag(page):
    page.make("a fox for a poster")
    page.wait_for_images(1)
    page.page.locator(".card.ready .open").click()
    page.page.get_by_label("Tags").fill("poster, approved")
    page.page.get_by_label("Tags").press("Enter")
    expect(page.page.locator(".toast")).to_have_text("Tagged: poster, approved.")
    page.open("/#/gallery")
    page.page.get_by_label("Tag", exact=True).select_option("approved")
    expect(page.page.locator(".grid .card")).to_have_count(1)


def test_older_images_stay_in_the_gallery_when_the_server_is_back(browser, tmp_path):
    height = "() => document.querySelector('.grid').clientHeight"
    options = ("--state", tmp_path / "state", "--queue", 120)
    with process(*options) as (base, running), page_of(browser, base) as page:
        with httpx2.Client(headers=STUDIO) as client:
            bodies = ({"prompt": f"fox {number}", "width": 64, "height": 64} for number in range(120))
            polling_urls = [client.post(base + PRO, json=body).json()["polling_url"] for body in bodies]
            while any(client.get(url).json()["status"] == "Pending" for url in polling_urls):
                pass
        page.open("/#/gallery")
        page.page.wait_for_function("() => document.querySelector('.grid')?.clientHeight > 4000")
        before = page.page.evaluate(height)
        running.kill()
        running.wait()
        expect(page.page.locator(".banner")).to_be_visible()
        with process(*options, "--port", base.rpartition(":")[2]):
            with page.page.expect_response("**/v1/tasks?limit=100") as told:
                expect(page.page.locator(".banner")).to_have_count(0)
            told.value.finished()
            page.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            assert page.page.evaluate(height) == before
        page.complaints.clear()


def test_a_placeholder_is_marked_whatever_engine_the_server_has_by_now(page):
    def another_engine(route):
        route.fulfill(json={**route.fetch().json(), "engine": "upstream"})

    page.page.route("**/v1/session", another_engine)
    page.page.reload()
    page.make("a heron")
    page.wait_for_images(1)
    expect(page.page.locator(".card .badge")).to_have_text("placeholder")
    expect(page.page.locator(".bar .pill")).to_have_count(0)
    page.page.locator(".card.ready .open").click()
    expect(page.page.locator(".viewer .note")).to_contain_text("not FLUX")
