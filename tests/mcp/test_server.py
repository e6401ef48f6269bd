"""The MCP server, asked by the SDK's own client over both transports and both generations of the protocol."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path

import httpx2
import pytest
from mcp.types import ElicitResult, ListRootsResult, Root
from PIL import Image

from fluxwerk.mcp.thumbnail import LONGEST_BASE64
from support.assistant import client, either, over_http, over_stdio
from support.images import png

SMALL = {"prompt": "a red fox", "width": 256, "height": 128}
TRANSPORTS = [("stdio", "auto"), ("stdio", "legacy"), ("http", "auto"), ("http", "legacy")]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


@pytest.mark.parametrize(("transport", "mode"), TRANSPORTS)
def test_an_assistant_makes_an_image(transport, mode, tmp_path):
    async def talk(server):
        steps = []

        async def on_progress(done, total, message):
            steps.append((done, total, message))

        async with client(server, mode=mode) as assistant:
            made = await assistant.call_tool("generate", SMALL, progress_callback=on_progress)
            return made, steps

    with either(transport, "--offline", "-o", tmp_path) as server:
        made, steps = run(talk(server))
    (image,) = made.structured_content["images"]
    path = Path(image["path"])
    assert path.parent == tmp_path.resolve()
    assert Image.open(io.BytesIO(path.read_bytes())).size == (256, 128)
    assert (image["cost"], image["engine"]) == (3, "offline")
    assert [block.type for block in made.content] == ["text", "image", "resource_link", "text"]
    assert "placeholder" in made.content[0].text
    shown = made.content[1]
    assert len(shown.data) <= LONGEST_BASE64
    assert Image.open(io.BytesIO(base64.b64decode(shown.data))).format == "JPEG"
    assert steps[0][2] == "1 × flux-2-pro, about 3 credits"
    assert steps[-1][:2] == (1, 1)


def test_no_answer_holds_the_whole_image(tmp_path):
    async def talk():
        async with client(over_stdio("--offline", "-o", tmp_path)) as assistant:
            return await assistant.call_tool("generate", {"prompt": "a fox", "output_format": "png"})

    made = run(talk())
    whole = Path(made.structured_content["images"][0]["path"]).stat().st_size
    answer = len(json.dumps(made.model_dump(mode="json")))
    assert answer < LONGEST_BASE64 + 10_000 < whole


def test_the_tools_that_spend_nothing_answer_without_an_image(tmp_path):
    async def talk():
        async with client(over_stdio("--offline", "-o", tmp_path, "--max-cost", "50")) as assistant:
            tools = {tool.name: tool for tool in (await assistant.list_tools()).tools}
            price = await assistant.call_tool(
                "price", {"model": "flux-2-pro", "count": 3, "width": 2048, "height": 1024}
            )
            answers = {name: await assistant.call_tool(name, {}) for name in ("credits", "models", "history")}
            lint = await assistant.call_tool("lint", {"prompt": "a fox, no people", "model": "flux-2-pro"})
            return tools, price, answers, lint

    tools, price, answers, lint = run(talk())
    assert set(tools) == {"generate", "edit", "fill", "price", "credits", "models", "history", "image", "lint"}
    assert {name for name, tool in tools.items() if not tool.annotations.read_only_hint} == {"generate", "edit", "fill"}
    assert price.structured_content["credits"] == 13.5
    assert answers["credits"].structured_content["session_cap"] == 50
    assert answers["history"].structured_content == {"images": []}
    names = [row["name"] for row in answers["models"].structured_content["models"]]
    assert "flux-2-pro" in names
    assert "flux-2-dev" not in names
    assert "negation" in [row["rule"] for row in lint.structured_content["advice"]]


def test_earlier_images_are_listed_and_shown_in_another_session(tmp_path):
    async def make():
        async with client(over_stdio("--offline", "-o", tmp_path)) as assistant:
            await assistant.call_tool("generate", {**SMALL, "count": 2, "model": "flux-2-klein-4b"})

    async def look():
        async with client(over_stdio("--offline", "-o", tmp_path)) as assistant:
            listed = await assistant.call_tool("history", {"model": "flux-2-klein-4b"})
            shown = await assistant.call_tool("image", {"image": 1})
            missing = await assistant.call_tool("image", {"image": 99})
            return listed, shown, missing

    run(make())
    listed, shown, missing = run(look())
    assert [row["image"] for row in listed.structured_content["images"]] == [2, 1]
    assert shown.content[1].type == "image"
    assert missing.is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_edit_reads_only_what_the_roots_open(mode, tmp_path):
    opened, closed, out = (tmp_path / name for name in ("opened", "closed", "out"))
    for folder in (opened, closed):
        folder.mkdir()
        (folder / "photo.png").write_bytes(png(256, 256))
    (opened / "way-out.png").symlink_to(closed / "photo.png")

    async def roots(_):
        return ListRootsResult(roots=[Root(uri=opened.as_uri())])

    async def talk():
        server = over_stdio("--offline", "-o", out)
        async with client(server, mode=mode, list_roots_callback=roots) as assistant:
            asked = ["photo.png", (opened / "photo.png").as_uri(), str(closed / "photo.png"), "way-out.png", "none.png"]
            return [await assistant.call_tool("edit", {"prompt": "at night", "images": [image]}) for image in asked]

    relative, uri, outside, link, missing = run(talk())
    assert not relative.is_error
    assert not uri.is_error
    assert outside.is_error
    assert "may not be read" in outside.content[0].text
    assert link.is_error
    assert "is not there" in missing.content[0].text


def test_a_client_without_roots_opens_only_the_folders_of_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.png").write_bytes(png(256, 256))
    (tmp_path / "in" / "mask.png").write_bytes(_mask())

    async def talk(*options):
        async with client(over_stdio("--offline", "-o", tmp_path / "out", *options)) as assistant:
            wish = {"prompt": "a lake", "image": "photo.png", "mask": "mask.png"}
            return await assistant.call_tool("fill", wish)

    assert run(talk()).is_error
    filled = run(talk("--read", tmp_path / "in"))
    assert filled.structured_content["images"][0]["model"] == "flux-pro-1.0-fill"


def test_options_cannot_smuggle_a_file_or_a_webhook(tmp_path):
    (tmp_path / "photo.png").write_bytes(png(256, 256))

    async def talk():
        async with client(over_stdio("--offline", "-o", tmp_path / "out")) as assistant:
            smuggled = [
                {"input_image": str(tmp_path / "photo.png")},
                {"webhook_url": "https://x.example/"},
                {"output": "x"},
                {"tag": "x"},
            ]
            return [await assistant.call_tool("generate", {**SMALL, "options": one}) for one in smuggled]

    for answer in run(talk()):
        assert answer.is_error
        assert "is no option" in answer.content[0].text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_cost_above_the_threshold_needs_a_person(mode, tmp_path):
    questions = []

    def answering(action, content):
        async def answer(_, params):
            questions.append(params.message)
            return ElicitResult(action=action, content=content)

        return answer

    async def talk(**settings):
        server = over_stdio("--offline", "-o", tmp_path, "--confirm-above", "5")
        async with client(server, mode=mode, **settings) as assistant:
            return await assistant.call_tool("generate", {**SMALL, "count": 2})

    agreed = run(talk(elicitation_callback=answering("accept", {"spend": True})))
    assert len(agreed.structured_content["images"]) == 2
    assert questions == ["2 × flux-2-pro costs about 6 credits (1 credit is 1 US cent). Spend them?"]
    for refusal in (("accept", {"spend": False}), ("decline", None), ("cancel", None)):
        refused = run(talk(elicitation_callback=answering(*refusal)))
        assert refused.is_error
        assert "nothing was spent" in refused.content[0].text


def test_a_client_that_cannot_ask_repeats_the_call_with_the_cost(tmp_path):
    async def talk():
        async with client(over_stdio("--offline", "-o", tmp_path, "--confirm-above", "5")) as assistant:
            quoted = await assistant.call_tool("generate", {**SMALL, "count": 2})
            too_little = await assistant.call_tool("generate", {**SMALL, "count": 2, "confirm_cost": 5})
            made = await assistant.call_tool("generate", {**SMALL, "count": 2, "confirm_cost": 6})
            return quoted, too_little, made

    quoted, too_little, made = run(talk())
    assert quoted.is_error
    assert "confirm_cost=6" in quoted.content[0].text
    assert too_little.is_error
    assert len(made.structured_content["images"]) == 2


def test_a_session_stops_at_its_cap_and_a_day_over_all_sessions(tmp_path):
    async def talk():
        async with client(over_stdio("--offline", "-o", tmp_path, "--max-cost", "6", "--max-cost-day", "9")) as one:
            return [await one.call_tool("generate", SMALL) for _ in range(3)]

    first = run(talk())
    assert [answer.is_error for answer in first] == [False, False, True]
    assert "would cross the cap of this session: 6 of 6 credits are spent" in first[2].content[0].text
    second = run(talk())
    assert [answer.is_error for answer in second] == [False, True, True]
    assert "would cross the cap of this day: 9 of 9" in second[1].content[0].text


def test_over_http_a_token_opens_the_door(tmp_path):
    with over_http("--offline", "-o", tmp_path, FLUXWERK_MCP_TOKEN="a long text") as url:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({}, {"authorization": "Bearer another"}, {"authorization": "Basic a long text"}):
            assert httpx2.post(url, json=body, headers=headers).status_code == 401
        known = {"authorization": "Bearer a long text", "accept": "application/json, text/event-stream"}
        assert httpx2.post(url, json=body, headers=known).status_code != 401


def test_a_page_of_a_stranger_reaches_no_tool(tmp_path):
    with over_http("--offline", "-o", tmp_path) as url:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"accept": "application/json, text/event-stream"}
        assert httpx2.post(url, json=body, headers={**accept, "host": "evil.example"}).status_code == 421
        assert httpx2.post(url, json=body, headers={**accept, "origin": "http://evil.example"}).status_code == 403


def _mask() -> bytes:
    file = io.BytesIO()
    mask = Image.new("L", (256, 256))
    mask.paste(255, (64, 64, 192, 192))
    mask.save(file, "PNG")
    return file.getvalue()
