"""Images that a person gives: references by every way, a brushed mask, and the frame of an expansion."""

from __future__ import annotations

import base64
import json

import httpx2
from playwright.sync_api import expect

from support.browser import NEEDS, PHONE, picture, pixels, studio_at

pytestmark = NEEDS

# What a page gets when a file is dropped on it or pasted into it.
GIVE = """([selector, kind, name, text]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const make = kind === "paste" ? ClipboardEvent : DragEvent;
  const given = kind === "paste" ? { clipboardData: data } : { dataTransfer: data };
  const event = new make(kind, { ...given, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}"""


# Whether the mask covers the pixels at these shares of its width and height.
COVERED = """(canvas, places) => places.map(([x, y]) =>
    canvas.getContext("2d").getImageData(canvas.width * x, canvas.height * y, 1, 1).data[3] > 127)"""
LEFT, MIDDLE, RIGHT = (0.25, 0.5), (0.5, 0.5), (0.75, 0.5)


def give(page, kind: str, file) -> None:
    text = base64.b64encode(file.read_bytes()).decode()
    page.wait_for_selector(".references")
    page.evaluate(GIVE, [".references", kind, file.name, text])


def bodies(page) -> list[dict]:
    """Record the bodies of the submits to come."""
    found: list[dict] = []
    page.on(
        "request",
        lambda one: one.method == "POST" and "/v1/flux-" in one.url and found.append(json.loads(one.post_data)),
    )
    return found


def test_an_edit_has_two_references_by_drop_and_by_paste(page, tmp_path):
    sent = bodies(page.page)
    give(page.page, "drop", picture(tmp_path / "red.png", (320, 240), "#f00"))
    expect(page.page.locator(".tile")).to_have_count(1)
    give(page.page, "paste", picture(tmp_path / "blue.png", (256, 256), "#00f"))
    expect(page.page.locator(".tile")).to_have_count(2)
    page.page.get_by_label("Prompt", exact=True).fill("Put the cup of")
    page.page.get_by_role("button", name="Write “image 2” into the prompt").click()
    page.page.wait_for_selector("[data-credits='6']")
    page.page.get_by_role("button", name="Make image").click()
    page.wait_for_images(1)
    [body] = sent
    assert body["prompt"] == "Put the cup of image 2"
    assert pixels(base64.b64decode(body["input_image"])).getpixel((9, 9)) == (255, 0, 0)
    assert pixels(base64.b64decode(body["input_image_2"])).getpixel((9, 9)) == (0, 0, 255)


def test_references_are_reordered_and_removed_by_keyboard(page, tmp_path):
    for name in ("one.png", "two.png"):
        page.page.locator("input[type=file]").set_input_files(picture(tmp_path / name))
        expect(page.page.locator(f".tile img[alt*='{name}']")).to_have_count(1)
    page.page.get_by_role("button", name="Move image 2 to the front").press("Enter")
    expect(page.page.locator(".tile img").first).to_have_attribute("alt", "Reference 1: two.png, 512 × 384")
    page.page.get_by_role("button", name="Remove image 1").press("Enter")
    expect(page.page.locator(".tile img")).to_have_attribute("alt", "Reference 1: one.png, 512 × 384")


def test_a_turned_photograph_is_upright_and_a_large_one_is_scaled(page, tmp_path):
    turned = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    chooser = page.page.locator("input[type=file]")
    chooser.set_input_files(picture(tmp_path / "turned.jpg", (400, 200), exif=turned))
    expect(page.page.locator(".tile-size")).to_have_text("200 × 400")
    chooser.set_input_files(picture(tmp_path / "large.png", (4000, 2000)))
    expect(page.page.locator(".tile-size").nth(1)).to_contain_text("scaled down")


def test_a_reference_is_fetched_by_its_url(page, tmp_path):
    page.make("A red kite")
    page.wait_for_images(1)
    name = page.page.locator(".card.ready").get_attribute("data-task")
    answer = httpx2.get(f"{page.base}/v1/get_result?id={name}").json()
    page.page.get_by_role("button", name="Add an image by its URL").click()
    page.page.get_by_label("URL of an image").fill(answer["result"]["sample"])
    page.page.get_by_role("button", name="Add", exact=True).last.click()
    expect(page.page.locator(".tile-size")).to_have_text("1024 × 1024")


def test_a_fill_changes_what_was_painted_and_nothing_else(page, tmp_path):
    source = picture(tmp_path / "room.png", (512, 384), "#3a7")
    page.page.get_by_role("button", name="Fill").click()
    page.page.locator("input[type=file]").set_input_files(source)
    box = page.page.locator(".mask canvas").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=5)
    page.page.mouse.up()
    page.page.get_by_label("Format").select_option("png")
    page.make("a vase of tulips")
    page.wait_for_images(1)
    name = page.page.locator(".card.ready").get_attribute("data-task")
    made = pixels(page.page.request.get(f"{page.base}/v1/tasks/{name}/image").body())
    assert made.size == (512, 384)
    before = pixels(source.read_bytes())
    outside = [(x, y) for x in range(0, 512, 8) for y in (*range(0, 120, 8), *range(264, 384, 8))]
    assert [made.getpixel(at) for at in outside] == [before.getpixel(at) for at in outside]
    assert made.getpixel((230, 192)) != before.getpixel((230, 192))


def stroke(page, start, end) -> None:
    """Draw a line over the mask with the mouse."""
    box = page.locator(".mask canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * start[0], box["y"] + box["height"] * start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end[0], box["y"] + box["height"] * end[1], steps=8)
    page.mouse.up()


def test_an_eraser_takes_back_only_what_it_goes_over(page, tmp_path):
    sent = bodies(page.page)
    page.page.get_by_role("button", name="Fill").click()
    page.page.locator("input[type=file]").set_input_files(picture(tmp_path / "room.png"))
    canvas = page.page.locator(".mask canvas")
    stroke(page.page, LEFT, RIGHT)
    assert canvas.evaluate(COVERED, [LEFT, MIDDLE, RIGHT]) == [True, True, True]
    page.page.get_by_role("button", name="Eraser").click()
    stroke(page.page, (0.5, 0.2), (0.5, 0.8))
    assert canvas.evaluate(COVERED, [LEFT, MIDDLE, RIGHT]) == [True, False, True]
    page.make("a vase of tulips")
    page.wait_for_images(1)
    mask = pixels(base64.b64decode(sent[0]["mask"]))
    places = [(int(mask.width * x), int(mask.height * y)) for x, y in (LEFT, MIDDLE, RIGHT)]
    assert [mask.getpixel(at)[0] for at in places] == [255, 0, 255]


def test_a_tall_image_keeps_its_shape_below_the_brush(page, tmp_path):
    page.page.get_by_role("button", name="Fill").click()
    page.page.locator("input[type=file]").set_input_files(picture(tmp_path / "tall.png", (400, 800)))
    box = page.page.locator(".mask canvas").bounding_box()
    assert abs(box["height"] - 2 * box["width"]) < 2
    assert box["height"] < 0.47 * 900


def test_a_finger_paints_the_mask_and_does_not_move_the_page(browser, server, tmp_path):
    with studio_at(browser, server, size=PHONE, has_touch=True, is_mobile=True) as page:
        page.page.get_by_role("button", name="Fill").tap()
        page.page.locator("input[type=file]").set_input_files(picture(tmp_path / "room.png"))
        canvas = page.page.locator(".mask canvas")
        canvas.scroll_into_view_if_needed()
        box, moved = canvas.bounding_box(), page.page.evaluate("scrollY")
        finger = page.page.context.new_cdp_session(page.page)
        places = [{"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y} for x, y in (LEFT, RIGHT)]
        below = {**places[1], "y": places[1]["y"] + box["height"] * 0.4}
        for kind, points in (
            ("touchStart", places[:1]),
            ("touchMove", places[1:]),
            ("touchMove", [below]),
            ("touchEnd", []),
        ):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        expect(page.page.get_by_role("button", name="Undo")).to_be_enabled()
        assert canvas.evaluate(COVERED, [LEFT, MIDDLE, RIGHT, (0.75, 0.8), (0.25, 0.9)]) == [True] * 4 + [False]
        assert page.page.evaluate("scrollY") == moved


def drag(page, what: str, where: str) -> None:
    """Drag an element over another one with the mouse, and let go."""
    (x, y), to = centre(page, what), centre(page, where)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 20, y, steps=3)
    page.mouse.move(*to, steps=5)
    page.mouse.up()


def centre(page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_card_is_dragged_onto_the_references_and_to_start_from(page):
    sent = bodies(page.page)
    page.make("A red kite")
    page.wait_for_images(1)
    drag(page.page, ".card.ready .open", ".references")
    expect(page.page.locator(".tile-size")).to_have_text("1024 × 1024")
    page.page.get_by_role("button", name="Make image").click()
    page.wait_for_images(2)
    assert pixels(base64.b64decode(sent[1]["input_image"])).size == (1024, 1024)
    page.page.get_by_role("button", name="Expand").click()
    drag(page.page, ".card.ready .open", ".source")
    expect(page.page.locator(".source-line")).to_contain_text("1024 × 1024")


def test_a_mask_is_undone_inverted_and_painted_by_keyboard(page, tmp_path):
    page.page.get_by_role("button", name="Fill").click()
    page.page.locator("input[type=file]").set_input_files(picture(tmp_path / "room.png"))
    canvas = page.page.locator(".mask canvas")
    share = """canvas => { const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let covered = 0; for (let at = 3; at < all.length; at += 4) covered += all[at] > 127;
        return covered / (canvas.width * canvas.height); }"""
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press(" ")
    painted = canvas.evaluate(share)
    assert 0.001 < painted < 0.1
    page.page.get_by_role("button", name="Invert").click()
    assert abs(canvas.evaluate(share) - (1 - painted)) < 0.01
    page.page.get_by_role("button", name="Undo").click()
    canvas.press("Control+z")
    assert canvas.evaluate(share) == 0


def test_an_expansion_shows_the_new_size_and_has_it(page, tmp_path):
    sent = bodies(page.page)
    page.page.get_by_role("button", name="Expand").click()
    page.page.locator("input[type=file]").set_input_files(picture(tmp_path / "room.png", (512, 384)))
    page.page.get_by_label("top", exact=True).fill("128")
    page.page.get_by_role("slider", name="left margin").press("ArrowRight")
    expect(page.page.locator(".frame-size b")).to_have_text("1008 × 512")
    edge = page.page.get_by_role("slider", name="right margin").bounding_box()
    page.page.mouse.move(edge["x"] + 12, edge["y"] + 40)
    page.page.mouse.down()
    page.page.mouse.move(edge["x"] - 20, edge["y"] + 40, steps=4)
    page.page.mouse.up()
    size = page.page.locator(".frame-size b").inner_text()
    assert int(size.split(" ×")[0]) < 1008
    page.page.get_by_role("button", name="Make image").click()
    page.wait_for_images(1)
    page.page.locator(".card.ready .open").click()
    expect(page.page.locator("dl")).to_contain_text(size)
    assert sent[0]["left"] == 240
