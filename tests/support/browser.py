"""A real browser in front of a real server: every request is recorded, and whatever the page complains of is kept."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from support.needed import is_required
from support.process import process

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE, PHONE, SMALLEST = (1440, 900), (390, 844), (360, 740)
NEEDS = pytest.mark.skipif(
    CHROMIUM is None and not is_required("browser"), reason="the studio's tests need a browser: apt install chromium"
)
# What a browser says by itself about an answer that the test asked for, such as a 402.
EXPECTED = "Failed to load resource"


class Studio:
    """One page of one browser context, with everything that it asked for and complained of."""

    def __init__(self, page, base: str) -> None:
        self.page = page
        self.base = base
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: str = "/") -> None:
        self.page.goto(f"{self.base}{path}")

    def make(self, prompt: str, count: int = 1) -> None:
        """Write a prompt and press the button."""
        self.page.get_by_label("Prompt", exact=True).fill(prompt)
        for _ in range(count - 1):
            self.page.get_by_role("button", name="More images").click()
        self.page.get_by_role("button", name="Make").click()

    def choose(self, title: str) -> None:
        """Choose a model by its title."""
        self.page.locator(".picked").click()
        self.page.get_by_role("radio", name=title).first.click()

    def wait_for_images(self, count: int = 1) -> None:
        self.page.wait_for_function("count => document.querySelectorAll('.card.ready img').length >= count", arg=count)

    def outside(self) -> list[str]:
        """Return the requests that went anywhere but to the server."""
        own = urlsplit(self.base).netloc
        schemes = ("data", "blob")
        return [url for url in self.requests if urlsplit(url).netloc != own and urlsplit(url).scheme not in schemes]

    def _hear(self, message) -> None:
        if message.type in ("error", "warning") and EXPECTED not in message.text:
            self.complaints.append(message.text)


@contextmanager
def browsing(*flags: str) -> Iterator[object]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def studio(
    browser, *options: object, size: tuple[int, int] = WIDE, theme: str = "light", path: str = "/", **settings: object
) -> Iterator[Studio]:
    """A server with these options and a page of it; afterwards the page must have nothing to complain of."""
    with process(*options) as (base, _), page_of(browser, base, size=size, theme=theme, **settings) as opened:
        opened.open(path)
        yield opened


@contextmanager
def studio_at(browser, base: str, *, path: str = "/", **settings: object) -> Iterator[Studio]:
    """The studio of a new account at a server that takes any key."""
    with page_of(browser, base, **settings) as opened:
        body = {"key": uuid.uuid4().hex}
        assert opened.page.request.post(f"{base}/v1/session", data=body, headers={"origin": base}).ok
        opened.open(path)
        yield opened


@contextmanager
def page_of(
    browser, base: str, *, size: tuple[int, int] = WIDE, theme: str = "light", **settings: object
) -> Iterator[Studio]:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce", **settings
    )
    context.set_default_timeout(15_000)
    try:
        opened = Studio(context.new_page(), base)
        yield opened
        assert opened.complaints == []
        assert opened.outside() == []
    finally:
        context.close()


def picture(path: Path, size: tuple[int, int] = (512, 384), colour: str = "#3a7", exif: bytes = b"") -> Path:
    """Write a picture to give to the page."""
    Image.new("RGB", size, colour).save(path, exif=exif)
    return path


def pixels(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
