"""The door of AUTOMATIC1111's web UI, asked as Open WebUI and SillyTavern ask it."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator

import httpx2
import pytest
from PIL import Image

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from support.images import png, text
from support.sketching import Sketching

API = "/sdapi/v1/"


@pytest.fixture(scope="module")
def web() -> Iterator[httpx2.Client]:
    with loopback(aliases={"my-model": "flux-2-klein-4b"}) as base, httpx2.Client(base_url=base, timeout=20) as web:
        yield web


def sizes(answer: httpx2.Response) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(base64.b64decode(one))).size for one in answer.json()["images"]]


def test_open_webui_sets_the_model_and_makes_a_batch(web):
    models = web.get(API + "sd-models").json()
    assert {"title", "model_name"} <= set(models[0])
    assert models[0]["title"] == "my-model"
    assert web.post(API + "options", json={"sd_model_checkpoint": "flux-2-klein-4b"}).status_code == 200
    assert web.get(API + "options").json()["sd_model_checkpoint"] == "flux-2-klein-4b"
    asked = {"prompt": "a red fox", "batch_size": 2, "width": 256, "height": 128, "steps": 20}
    answer = web.post(API + "txt2img", json=asked)
    assert sizes(answer) == [(256, 128), (256, 128)]
    info = json.loads(answer.json()["info"])
    assert (info["sd_model_name"], len(set(info["all_seeds"])), info["width"]) == ("flux-2-klein-4b", 2, 256)
    assert answer.json()["parameters"]["prompt"] == "a red fox"


def test_a_choice_is_its_accounts_alone(web):
    theirs = {"authorization": "Basic " + base64.b64encode(b"someone:else").decode()}
    web.post(API + "options", json={"sd_model_checkpoint": "my-model"}, headers=theirs)
    assert web.get(API + "options", headers=theirs).json()["sd_model_checkpoint"] == "flux-2-klein-4b"
    assert web.get(API + "options", headers={"x-key": "third"}).json()["sd_model_checkpoint"] == "flux-2-pro"


def test_a_request_may_name_its_model(web):
    named = {"override_settings": {"sd_model_checkpoint": "flux-2-flex"}, "steps": 150, "distilled_cfg_scale": 1}
    answer = web.post(API + "txt2img", json={"prompt": "x", "width": 64, "height": 64, "seed": 5, **named})
    info = json.loads(answer.json()["info"])
    assert (info["sd_model_name"], info["seed"]) == ("flux-2-flex", 5)


def test_a_model_that_is_not_there_cannot_be_chosen(web):
    answer = web.post(API + "options", json={"sd_model_checkpoint": "sd-xl"})
    assert answer.status_code == 404
    assert "--alias sd-xl=flux-2-pro" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["samplers", "schedulers", "upscalers", "latent-upscale-modes"])
def test_a_list_to_choose_from_has_an_entry_with_a_name(web, name):
    assert [row["name"] for row in web.get(API + name).json()]


@pytest.mark.parametrize("name", ["sd-vae", "sd-modules", "loras", "prompt-styles"])
def test_what_flux_has_not_is_an_empty_list(web, name):
    assert web.get(API + name).json() == []


def test_sillytavern_s_request_passes_with_all_its_fields(web):
    """What it sends has fields of many extensions, and a seed of -1."""
    body = {
        "prompt": "a fox",
        "negative_prompt": "blurry",
        "sampler_name": "Euler",
        "scheduler": "simple",
        "steps": 20,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "None",
        "hr_scale": 2,
        "denoising_strength": 0.7,
        "clip_skip": 1,
        "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
    }
    assert sizes(web.post(API + "txt2img", json=body)) == [(512, 512)]


def test_an_image_becomes_another(web):
    asked = {
        "prompt": "x",
        "init_images": ["data:image/png;base64," + text(png(256, 256))],
        "width": 256,
        "height": 128,
    }
    assert sizes(web.post(API + "img2img", json=asked)) == [(256, 128)]


def test_a_white_part_of_a_mask_is_painted(web):
    file = io.BytesIO()
    mask = Image.new("L", (256, 256))
    mask.paste(255, (0, 0, 128, 256))
    mask.save(file, "PNG")
    asked = {"prompt": "x", "init_images": [text(png(256, 256))], "mask": text(file.getvalue())}
    answer = web.post(API + "img2img", json=asked)
    image = Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).convert("RGB")
    assert len(image.crop((144, 0, 256, 256)).getcolors()) == 1
    assert json.loads(answer.json()["info"])["sd_model_name"] == "flux-pro-1.0-fill"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": "x"}, "init_images"),
        ({"prompt": "x", "init_images": ["x"], "inpainting_mask_invert": 1}, "inpainting_mask_invert"),
        ({"prompt": "x", "init_images": ["x"]}, "Image"),
        ({"prompt": "x", "init_images": [text(png(64, 64))], "batch_size": 99}, "batch_size"),
    ],
)
def test_a_field_at_fault_is_said(web, body, said):
    answer = web.post(API + "img2img", json=body)
    assert answer.status_code in (400, 422)
    assert said in answer.json()["detail"]


def test_progress_and_interrupt_reach_the_account_s_requests():
    engine = Sketching()
    with loopback(engine) as base, httpx2.Client(base_url=base, timeout=20) as web:
        assert web.get(API + "progress").json()["state"]["job_count"] == 0
        answers: list[httpx2.Response] = []
        body = {"prompt": "x", "width": 64, "height": 64}
        thread = threading.Thread(target=lambda: answers.append(httpx2.post(base + API + "txt2img", json=body)))
        thread.start()
        while not (shown := web.get(API + "progress").json())["current_image"]:
            assert thread.is_alive()
        other = web.get(API + "progress", headers={"x-key": "other"}).json()
        assert web.post(API + "interrupt").status_code == 200
        thread.join()
    assert (shown["progress"], shown["state"]["job_count"]) == (0.25, 1)
    assert Image.open(io.BytesIO(base64.b64decode(shown["current_image"]))).format == "JPEG"
    assert other["progress"] == 0
    assert answers[0].json()["images"] == []
    assert engine.stopped.wait(5)


def test_a_password_is_the_key():
    with loopback(accounts=Accounts(["secret"])) as base:
        body = {"prompt": "x", "width": 64, "height": 64}
        assert httpx2.post(base + API + "txt2img", json=body).status_code == 401
        assert httpx2.post(base + API + "txt2img", json=body, auth=("user", "secret")).status_code == 200
        assert httpx2.post(base + API + "txt2img", json=body, auth=("secret", "")).status_code == 200
        broken = httpx2.post(base + API + "txt2img", json=body, headers={"authorization": "Basic %%%"})
        assert broken.status_code == 401
