"""Everybody can use the studio: by keyboard alone, on a small telephone, in the dark, and with a screen reader."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import expect

from support.browser import NEEDS, PHONE, SMALLEST, WIDE, picture, studio_at

pytestmark = NEEDS

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
# With frames left out, since the page has none; what is found names its rule and its elements.
RUN = """() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
    .then((found) => found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`))"""


def findings(page) -> list[str]:
    page.page.evaluate(AXE)
    return page.page.evaluate(RUN)


@pytest.fixture(
    params=[("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)], ids=lambda how: f"{how[0]}-{how[1][0]}"
)
def anyone(browser, server, request):
    theme, size = request.param
    with studio_at(browser, server, theme=theme, size=size, bypass_csp=True) as found:
        yield found


def test_axe_finds_nothing_wherever_one_goes(anyone, tmp_path):
    page, found = anyone.page, {}
    expect(page.locator(".composer-foot")).to_be_visible()
    found["empty"] = findings(anyone)
    page.locator("input[type=file]").set_input_files(picture(tmp_path / "one.png"))
    expect(page.locator(".tile")).to_be_visible()
    anyone.make("A lighthouse on a basalt cliff", 2)
    anyone.wait_for_images(2)
    page.get_by_text("More options of").click()
    page.locator(".picked").click()
    found["making"] = findings(anyone)
    page.keyboard.press("Escape")
    anyone.make("fluxwerk:error")
    page.wait_for_selector(".card.ended")
    found["ended"] = findings(anyone)
    for where in ("Fill", "Expand"):
        page.get_by_role("button", name=where, exact=True).click()
        if page.locator("input[type=file]").count():
            page.locator("input[type=file]").set_input_files(picture(tmp_path / "one.png"))
        expect(page.locator(".canvas-box, .frame-box")).to_be_visible()
        found[where] = findings(anyone)
    page.goto(f"{anyone.base}/#/gallery")
    page.get_by_role("button", name="Select", exact=True).click()
    found["gallery"] = findings(anyone)
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Open: A lighthouse").first.click()
    expect(page.locator(".viewer dl")).to_be_visible()
    found["image"] = findings(anyone)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".comparing .before")).to_be_visible()
    found["compare"] = findings(anyone)
    assert {where: faults for where, faults in found.items() if faults} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_the_operator(browser, server, theme):
    with studio_at(browser, server, theme=theme, path="/ops", bypass_csp=True) as page:
        expect(page.page.locator(".plots")).to_be_visible()
        assert findings(page) == []


def test_an_image_is_made_and_opened_by_keyboard_alone(page):
    keys = page.page.keyboard
    page.page.locator(".welcome").wait_for()

    def go_to(name: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            focused = page.page.evaluate(
                "() => document.activeElement.getAttribute('aria-label') || document.activeElement.id"
                " || document.activeElement.textContent.trim()"
            )
            if focused.startswith(name):
                return
        raise AssertionError(f"no key leads to {name}")

    go_to("prompt")
    keys.type("A heron in reeds")
    go_to("3:2")
    keys.press("Enter")
    go_to("More images")
    keys.press("Space")
    go_to("Make 2 images")
    keys.press("Enter")
    page.wait_for_images(2)
    go_to("Open: A heron")
    keys.press("Enter")
    expect(page.page.locator(".viewer dl")).to_contain_text("1248 × 832")
    keys.press("Escape")
    expect(page.page.locator(".viewer")).to_have_count(0)


def test_the_model_is_chosen_by_keyboard(page):
    page.page.locator(".picked").press("Enter")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#model-name")).to_have_text("FLUX.2 [pro] preview")
    expect(page.page.locator(".picked")).to_be_focused()


@pytest.mark.parametrize("place", ["/", "/#/gallery", "/ops"])
def test_nothing_is_wider_than_the_smallest_telephone(browser, server, place):
    with studio_at(browser, server, path=place, size=SMALLEST, has_touch=True) as page:
        page.page.wait_for_selector(".composer-foot, .gallery, .plots")
        wide = "() => [document.documentElement.scrollWidth, innerWidth]"
        assert page.page.evaluate(wide) == [SMALLEST[0], SMALLEST[0]]


def test_an_image_is_made_on_the_smallest_telephone(browser, server):
    with studio_at(browser, server, size=SMALLEST, has_touch=True) as page:
        page.make("A harbour in fog")
        page.wait_for_images(1)
        page.page.locator(".card.ready .open").tap()
        expect(page.page.locator(".viewer .full img")).to_be_visible()
        assert page.page.evaluate("() => document.documentElement.scrollWidth") == SMALLEST[0]


def test_a_choice_of_colours_outlasts_a_reload(page):
    page.page.get_by_role("button", name="Dark colours").click()
    dark = "() => getComputedStyle(document.body).backgroundColor"
    chosen = page.page.evaluate(dark)
    page.page.reload()
    page.page.wait_for_selector(".composer-foot")
    assert page.page.evaluate(dark) == chosen == "rgb(13, 13, 15)"


def test_nothing_moves_for_who_does_not_want_it(page):
    page.make("fluxwerk:pending-forever")
    page.page.wait_for_selector(".card.pending[data-task]")
    moving = "() => document.getAnimations().filter((one) => one.playState === 'running').length"
    assert page.page.evaluate(moving) == 0
