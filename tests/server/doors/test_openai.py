"""The OpenAI door, asked by the official package over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Iterator

import httpx2
import openai
import pytest
from PIL import Image

from fluxwerk.server.doors.visit import names_served
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import Store
from fluxwerk.testing import loopback
from support.images import hosting, png, text
from support.sketching import Sketching

ALIASES = {"dall-e-3": "flux-2-pro", "gpt-image-1": "flux-2-klein-9b"}
KEY = {"authorization": "Bearer a-key"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback(aliases=ALIASES) as base:
        yield base


def client_of(base: str, key: str = "a-key") -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=base, max_retries=0)


@pytest.fixture
def client(server) -> Iterator[openai.OpenAI]:
    with client_of(f"{server}/v1") as client:
        yield client


def opened(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def picture(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), colour).save(file, "PNG")
    return file.getvalue()


def mask(box: tuple[int, int, int, int], mode: str = "RGBA") -> bytes:
    """A mask in OpenAI's convention: opaque black with a transparent box."""
    file = io.BytesIO()
    image = Image.new(mode, (256, 256), (0, 0, 0, 255)[: len(mode)])
    image.paste((0, 0, 0, 0)[: len(mode)], box)
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("place", ["/v1", ""])
def test_the_official_package_makes_an_image(server, place):
    with client_of(server + place) as client:
        made = client.images.generate(model="flux-2-pro", prompt="a red fox", size="512x256")
    image = opened(made.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (512, 256))
    assert (made.size, made.output_format) == ("512x256", "png")


def test_the_asynchronous_package_makes_images_side_by_side(server):
    async def make() -> list[tuple[int, int]]:
        async with openai.AsyncOpenAI(api_key="a-key", base_url=f"{server}/v1", max_retries=0) as client:
            asked = [client.images.generate(prompt="x", size=f"{side}x64") for side in (64, 128, 192)]
            return [opened(made.data[0].b64_json).size for made in await asyncio.gather(*asked)]

    assert asyncio.run(make()) == [(64, 64), (128, 64), (192, 64)]


def test_an_alias_stands_for_its_model_and_is_listed_first(client):
    assert client.images.generate(model="dall-e-3", prompt="x", size="64x64").data
    listed = [model.id for model in client.models.list()]
    assert listed[:2] == ["dall-e-3", "gpt-image-1"]
    assert "flux-2-pro" in listed
    assert client.models.retrieve("dall-e-3").id == "dall-e-3"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dall-e-2")


def test_an_unknown_model_is_refused_with_the_ones_there_are(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.images.generate(model="dall-e-2", prompt="x")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "--alias dall-e-2=flux-2-pro" in refused.value.message
    assert "gpt-image-1" in refused.value.message


def test_the_list_of_models_keeps_the_server_s_own_form(server):
    body = httpx2.get(f"{server}/v1/models").json()
    assert body["engine"] == "offline"
    assert {row["name"] for row in body["models"]} <= {row["id"] for row in body["data"]}


@pytest.mark.parametrize(("served", "expected"), [({"b"}, ["b"]), (set(), ["a", "b"])], ids=["some", "none"])
def test_the_models_of_a_door_are_those_that_are_served_now_or_all_while_none_is(served, expected):
    rows = [{"name": name, "served": name in served} for name in ("a", "b")]
    assert names_served({"models": rows}) == expected


def test_several_images_of_one_seed_differ(client):
    made = client.images.generate(prompt="x", n=3, size="64x64", extra_body={"seed": 7})
    assert len({one.b64_json for one in made.data}) == 3
    again = client.images.generate(prompt="x", size="64x64", extra_body={"seed": 8})
    assert again.data[0].b64_json == made.data[1].b64_json


def test_more_images_than_slots_wait_for_each_other():
    """Kontext max has six slots."""
    with loopback(pace=lambda _: 0.1) as base, client_of(f"{base}/v1") as client:
        assert len(client.images.generate(model="flux-kontext-max", prompt="x", n=8).data) == 8


def test_a_link_is_given_only_where_it_is_asked_for(client, server):
    made = client.images.generate(prompt="x", size="64x64", response_format="url")
    assert made.data[0].b64_json is None
    assert made.data[0].url.startswith(f"{server}/results/")
    assert httpx2.get(made.data[0].url).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("model", "size", "made"),
    [
        ("flux-2-pro", "auto", (1024, 1024)),
        ("flux-2-pro", "1000x500", (992, 496)),
        ("flux-pro-1.1", "1792x1024", (1440, 800)),
        ("flux-kontext-pro", "1536x1024", (1248, 832)),
        ("flux-3-image", "1024x1792", (1152, 2048)),
    ],
)
def test_a_size_becomes_the_nearest_that_the_model_makes(client, model, size, made):
    image = client.images.generate(model=model, prompt="x", size=size)
    assert opened(image.data[0].b64_json).size == made


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_the_type_of_the_file_is_the_one_that_is_asked_for(client, kind, name):
    made = client.images.generate(prompt="x", size="64x64", output_format=kind)
    assert (made.output_format, opened(made.data[0].b64_json).format) == (kind, name)


def test_an_edit_takes_one_file_or_several(client):
    red, blue = picture((200, 0, 0)), picture((0, 0, 200))
    one = client.images.edit(model="flux-kontext-pro", image=("a.png", red, "image/png"), prompt="x")
    assert opened(one.data[0].b64_json).size == (1024, 1024)
    several = client.images.edit(model="flux-2-pro", image=[red, blue], prompt="x", size="64x64", n=2)
    assert len(several.data) == 2
    plain = client.images.generate(model="flux-2-pro", prompt="x", size="64x64", extra_body={"seed": 1})
    edited = client.images.edit(model="flux-2-pro", image=[red], prompt="x", size="64x64", extra_body={"seed": 1})
    assert edited.data[0].b64_json != plain.data[0].b64_json


def test_more_images_than_the_model_takes_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="at most 4 images, and 5 came"):
        client.images.edit(model="flux-2-klein-4b", image=[png(64, 64)] * 5, prompt="x")


@pytest.mark.parametrize("form", ["image", "images", "url", "data"])
def test_an_edit_as_json_takes_texts_and_links(form):
    with hosting({"/a.png": png(96, 64)}) as host, loopback() as base:
        images = {
            "image": {"image": text(png(96, 64))},
            "images": {"images": [{"image_url": f"{host}/a.png"}]},
            "url": {"image": f"{host}/a.png"},
            "data": {"image": ["data:image/png;base64," + text(png(96, 64))]},
        }[form]
        answer = httpx2.post(f"{base}/v1/images/edits", json={"prompt": "x", **images}, headers=KEY)
    assert opened(answer.json()["data"][0]["b64_json"]).size == (96, 64)


def test_a_mask_paints_only_where_it_is_transparent(client):
    made = client.images.edit(model="flux-2-pro", image=picture((200, 0, 0)), mask=mask((0, 0, 128, 256)), prompt="sea")
    image = opened(made.data[0].b64_json).convert("RGB")
    right = image.crop((144, 0, 256, 256))
    assert right.getextrema() == ((200, 200), (0, 0), (0, 0))
    assert image.crop((0, 0, 112, 256)).getextrema() != ((200, 200), (0, 0), (0, 0))


def test_an_opaque_mask_paints_what_is_white(client):
    file = io.BytesIO()
    opaque = Image.new("L", (256, 256))
    opaque.paste(255, (0, 0, 128, 256))
    opaque.save(file, "PNG")
    made = client.images.edit(image=picture((200, 0, 0)), mask=file.getvalue(), prompt="sea")
    image = opened(made.data[0].b64_json).convert("RGB")
    assert image.crop((144, 0, 256, 256)).getextrema() == ((200, 200), (0, 0), (0, 0))
    assert image.crop((0, 0, 112, 256)).getextrema() != ((200, 200), (0, 0), (0, 0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(mask((0, 0, 0, 0)), "marks nothing"), (b"no image", "mask"), (mask((0, 0, 64, 64), "RGB"), "marks nothing")],
)
def test_a_mask_that_marks_nothing_is_refused(client, wrong, said):
    with pytest.raises(openai.BadRequestError, match=said) as refused:
        client.images.edit(image=picture((200, 0, 0)), mask=wrong, prompt="x")
    assert refused.value.param == "mask"


def test_a_mask_by_link_is_refused(server):
    body = {"prompt": "x", "image": text(png(64, 64)), "mask": {"image_url": "https://x.example/a.png"}}
    answer = httpx2.post(f"{server}/v1/images/edits", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mask")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x", "size": "large"}, "size"),
        ({"prompt": "x", "n": 11}, "n"),
        ({"prompt": "x", "n": "two"}, "n"),
        ({"prompt": "x", "output_format": "gif"}, "output_format"),
        ({}, "prompt"),
    ],
)
def test_a_field_at_fault_is_named(server, body, param):
    answer = httpx2.post(f"{server}/v1/images/generations", json=body, headers=KEY)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 50_000])
def test_a_body_that_is_no_object_is_refused(server, body):
    answer = httpx2.post(f"{server}/v1/images/generations", content=body, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")


def test_a_broken_form_is_refused(server):
    headers = {**KEY, "content-type": "multipart/form-data; boundary=x"}
    answer = httpx2.post(f"{server}/v1/images/edits", content=b"--y\r\n", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_error")


def test_fields_that_no_model_has_are_ignored(client):
    made = client.images.generate(
        prompt="x", size="64x64", quality="high", style="vivid", background="opaque", moderation="low", user="someone"
    )
    assert made.data


def test_moderation_is_a_policy_violation(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="fluxwerk:content-moderated", size="64x64")
    assert refused.value.code == "content_policy_violation"


def test_a_task_that_fails_is_the_server_s_error(client):
    with pytest.raises(openai.InternalServerError) as refused:
        client.images.generate(prompt="fluxwerk:error", size="64x64")
    assert refused.value.body["type"] == "server_error"


def test_unknown_keys_and_missing_ones_are_refused():
    with loopback(accounts=Accounts(["known"])) as base:
        with client_of(base, "unknown") as client, pytest.raises(openai.AuthenticationError) as refused:
            client.images.generate(prompt="x")
        assert refused.value.code == "invalid_api_key"
        with client_of(base, "known") as client:
            assert client.images.generate(prompt="x", size="64x64").data
        keyed = httpx2.post(f"{base}/v1/images/generations", json={"prompt": "x"}, headers={"x-key": "known"})
        assert keyed.status_code == 200
        assert httpx2.post(f"{base}/v1/images/generations", json={"prompt": "x"}).status_code == 401


def test_an_empty_account_has_no_quota():
    with loopback(accounts=Accounts(["poor"], 1)) as base, client_of(base, "poor") as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.images.generate(prompt="x")
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_quota")


def test_a_full_pool_names_the_seconds_to_wait():
    with loopback(pace=lambda _: 30) as base:
        body = {"prompt": "x", "width": 64, "height": 64}
        for _ in range(6):
            assert httpx2.post(f"{base}/v1/flux-kontext-max", json={"prompt": "x"}, headers={"x-key": "k"}).is_success
        answer = httpx2.post(
            f"{base}/v1/images/generations", json={**body, "model": "flux-kontext-max"}, headers={"x-key": "k"}
        )
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_the_answer_names_cost_and_tasks(server):
    answer = httpx2.post(f"{server}/v1/images/generations", json={"prompt": "x", "n": 2}, headers=KEY)
    assert answer.headers["x-fluxwerk-cost"] == "6"
    assert len(answer.headers["x-fluxwerk-tasks"].split(",")) == 2


def test_the_priority_of_a_request_reaches_its_submits(server):
    headers = {**KEY, "x-fluxwerk-priority": "1000"}
    answer = httpx2.post(f"{server}/v1/images/generations", json={"prompt": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Fluxwerk-Priority")


def test_what_a_program_asks_first_does_not_fail(server):
    answer = httpx2.options(f"{server}/v1/images/generations")
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")


def test_a_stream_shows_previews_before_the_image():
    engine = Sketching()
    with loopback(engine) as base, client_of(f"{base}/v1") as client:
        stream = client.images.generate(prompt="x", size="64x64", stream=True, partial_images=2)
        events = []
        for event in stream:
            events.append(event)
            engine.let_go()
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert opened(events[0].b64_json).format == "JPEG"
    assert opened(events[2].b64_json).size == (64, 64)


def test_a_stream_that_is_refused_at_once_is_an_ordinary_refusal(client):
    with pytest.raises(openai.BadRequestError):
        client.images.generate(prompt="x", size="large", stream=True)


def test_a_stream_that_ends_badly_says_so(client):
    with pytest.raises(openai.APIError, match="Moderation"):
        list(client.images.generate(prompt="fluxwerk:content-moderated", size="64x64", stream=True))


def walk_away(base: str, headers: dict[str, str]) -> None:
    with httpx2.Client(timeout=httpx2.Timeout(5, read=0.5)) as http, pytest.raises(httpx2.ReadTimeout):
        http.post(f"{base}/v1/images/generations", json={"prompt": "x", "size": "64x64"}, headers=headers)


def test_a_client_that_goes_cancels_its_task():
    engine = Sketching()
    with loopback(engine) as base:
        walk_away(base, KEY)
        assert engine.stopped.wait(5)
        tasks = httpx2.get(f"{base}/v1/tasks", headers={"x-key": "a-key"}).json()["tasks"]
        assert [(task["stage"], task["cost"]) for task in tasks] == [("ended", 0)]


def test_a_client_that_leaves_a_stream_cancels_its_task():
    engine = Sketching()
    body = {"prompt": "x", "size": "64x64", "stream": True, "partial_images": 1}
    with loopback(engine) as base, httpx2.Client(timeout=20) as http:
        with http.stream("POST", f"{base}/v1/images/generations", json=body, headers=KEY) as stream:
            assert "partial_image" in next(stream.iter_lines())
        assert engine.stopped.wait(5)


def test_a_client_that_comes_back_with_its_key_gets_the_same_image():
    engine = Sketching()
    headers = {**KEY, "idempotency-key": "once"}
    with loopback(engine, keeps_keys=True) as base:
        walk_away(base, headers)
        again: list[httpx2.Response] = []
        body = {"prompt": "x", "size": "64x64"}
        thread = threading.Thread(
            target=lambda: again.append(httpx2.post(f"{base}/v1/images/generations", json=body, headers=headers))
        )
        thread.start()
        while thread.is_alive():
            engine.let_go()
            thread.join(0.02)
        tasks = httpx2.get(f"{base}/v1/tasks", headers={"x-key": "a-key"}).json()["tasks"]
    assert again[0].status_code == 200
    assert not engine.stopped.is_set()
    assert [task["cost"] for task in tasks] == [3]


def test_a_body_without_end_is_refused_in_openai_s_words(server):
    answer = httpx2.post(f"{server}/v1/images/generations", content=b" " * (2 * 2**20), headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


class Elsewhere(MemoryStorage):
    """A store that says its objects lie on another host."""

    def link(self, name: str, seconds: float) -> str:
        return f"http://bucket.invalid/{name}"


def test_a_door_hands_out_bytes_where_links_lead_to_a_bucket():
    books = Accounts(store=Store(StateFile(), Elsewhere()))
    with loopback(accounts=books, redirects=True) as base, client_of(f"{base}/v1") as client:
        assert opened(client.images.generate(prompt="x", size="64x64").data[0].b64_json).size == (64, 64)
        link = client.images.generate(prompt="x", size="64x64", response_format="url").data[0].url
        assert httpx2.get(link).headers["location"].startswith("http://bucket.invalid/")
