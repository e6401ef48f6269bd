"""The studio's pictures in the documentation: `python tests/support/screenshots.py` writes them again.

Two widths, light and dark, of every view; the images in them are placeholders of the offline engine.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import httpx2
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.browser import PHONE, WIDE, browsing, page_of
from support.process import process

FOLDER = Path(__file__).parents[2] / "docs" / "studio"
KEY = {"x-key": "studio"}
PROMPTS = (
    ("A lighthouse on a basalt cliff, last light, long exposure", 1536, 1024, 3),
    ("Product photograph of a glass teapot on travertine, soft window light from the left", 1024, 1024, 4),
    ("Risograph poster of a heron in reeds, two inks, generous margins", 832, 1248, 4),
    ("A quarry lake at dusk, seen from the rim, haze over the water", 1344, 576, 2),
    ("Interior of a paper workshop, north light, stacked sheets in muted colours", 1024, 1024, 4),
    ("Macro of frost on a red maple leaf, shallow focus", 1152, 896, 4),
)
EDIT = "Put the teapot of image 1 on the shelf of image 2, and keep its colours"


def fill(base: str) -> list[str]:
    """Make the images that the pictures show."""
    made = []
    for number, (prompt, width, height, count) in enumerate(reversed(PROMPTS)):
        for seed in range(count):
            model = "flux-2-max" if number % 3 == 2 else "flux-2-pro"
            body = {"prompt": prompt, "width": width, "height": height, "seed": 40 * number + seed}
            submitted = httpx2.post(f"{base}/v1/{model}", json=body, headers=KEY).json()
            while httpx2.get(submitted["polling_url"]).json()["status"] == "Pending":
                pass
            made.append(submitted["id"])
    return made


def give_references(page, base: str, made: list[str], folder: Path) -> None:
    for number, name in enumerate((made[-9], made[6]), start=1):
        file = folder / f"reference-{number}.jpg"
        file.write_bytes(httpx2.get(f"{base}/v1/tasks/{name}/image", headers=KEY).content)
        page.page.locator("input[type=file]").set_input_files(file)
        page.page.locator(".tile").nth(number - 1).wait_for()


def shoot(page, name: str) -> None:
    # What is said for a few seconds lies over what the picture is about.
    page.page.locator(".toast[data-shown='true']").wait_for(state="hidden")
    page.page.wait_for_timeout(700)
    picture = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
    picture.save(FOLDER / f"{name}.webp", quality=84, method=6)


def views(page, base: str, made: list[str], folder: Path, suffix: str) -> None:
    """Photograph every view."""
    page.open()
    page.wait_for_images(8)
    page.page.get_by_label("Prompt", exact=True).fill(PROMPTS[0][0])
    page.page.get_by_role("button", name="3:2").click()
    shoot(page, f"make-{suffix}")
    give_references(page, base, made, folder)
    page.page.get_by_label("Prompt", exact=True).fill(EDIT)
    shoot(page, f"edit-{suffix}")
    page.page.get_by_role("button", name="Fill", exact=True).click()
    page.page.locator(".source input[type=file]").set_input_files(folder / "reference-1.jpg")
    box = page.page.locator(".mask canvas").bounding_box()
    at = [(0.3, 0.35), (0.5, 0.3), (0.68, 0.42), (0.62, 0.62), (0.4, 0.6), (0.52, 0.46)]
    page.page.locator(".mask canvas").scroll_into_view_if_needed()
    for number, (x, y) in enumerate(at):
        page.page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=4)
        if number == 0:
            page.page.mouse.down()
    page.page.mouse.up()
    page.page.get_by_label("Prompt", exact=True).fill("a paper moon")
    shoot(page, f"fill-{suffix}")
    page.page.get_by_role("button", name="Expand", exact=True).click()
    page.page.locator(".frame-box").wait_for()
    shoot(page, f"expand-{suffix}")
    page.open("/#/gallery")
    page.page.locator(".grid .card").nth(7).wait_for()
    shoot(page, f"gallery-{suffix}")
    page.open(f"/#/image/{made[-1]}")
    page.page.locator(".full img").wait_for()
    shoot(page, f"image-{suffix}")
    page.open(f"/#/compare/{made[-1]}/{made[-2]}")
    page.page.locator(".comparing .before").wait_for()
    shoot(page, f"compare-{suffix}")
    page.open("/ops")
    page.page.locator(".plots").wait_for()
    page.page.wait_for_timeout(6000)
    shoot(page, f"ops-{suffix}")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browsing() as browser, process() as (base, _):
        made = fill(base)
        for theme in ("light", "dark"):
            for size in (WIDE, PHONE):
                with page_of(browser, base, size=size, theme=theme) as page:
                    views(page, base, made, Path(folder), f"{theme}-{size[0]}")


if __name__ == "__main__":
    main()
