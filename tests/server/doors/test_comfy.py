"""The door of ComfyUI's BFL nodes: submit at the proxy's path, poll what it names, download the sample."""

from __future__ import annotations

import httpx2
import pytest

from support.images import png, text

PICTURE = text(png(256, 256))
# What the nodes send, with the defaults of their forms.
NODES = {
    "flux-2-pro": {"prompt": "x", "width": 1024, "height": 768, "seed": 2**64 - 1, "prompt_upsampling": True},
    "flux-2-max": {"prompt": "x", "width": 256, "height": 256, "seed": 0, "input_image": PICTURE},
    "flux-kontext-pro": {
        "prompt": "x",
        "prompt_upsampling": False,
        "guidance": 3.0,
        "steps": 50,
        "seed": 1234,
        "aspect_ratio": "16:9",
        "input_image": PICTURE,
        "safety_tolerance": 2,
        "output_format": "png",
    },
    "flux-pro-1.1-ultra": {
        "prompt": "x",
        "prompt_upsampling": False,
        "seed": 0,
        "aspect_ratio": "16:9",
        "raw": False,
        "safety_tolerance": 6,
        "output_format": "png",
    },
    "flux-pro-1.0-fill": {
        "prompt": "x",
        "prompt_upsampling": False,
        "guidance": 60,
        "steps": 50,
        "seed": 0,
        "safety_tolerance": 6,
        "output_format": "png",
        "image": PICTURE,
        "mask": PICTURE,
    },
    "flux-pro-1.0-expand": {
        "prompt": "x",
        "prompt_upsampling": False,
        "top": 0,
        "bottom": 64,
        "left": 0,
        "right": 0,
        "steps": 50,
        "guidance": 60,
        "safety_tolerance": 6,
        "output_format": "png",
        "seed": 0,
        "image": PICTURE,
    },
    "flux-tools/erase-v1": {"image": PICTURE, "mask": PICTURE, "dilate_pixels": 10, "seed": 0, "output_format": "png"},
    "flux-tools/vto-v1": {
        "prompt": "",
        "person": PICTURE,
        "garment": PICTURE,
        "seed": 0,
        "safety_tolerance": 5,
        "output_format": "png",
    },
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_gets_its_image(fluxwerk_server, name):
    bearer = {"authorization": "Bearer comfy-token"}
    with httpx2.Client(base_url=fluxwerk_server, timeout=30, headers=bearer) as comfy:
        submitted = comfy.post(f"/proxy/bfl/{name}/generate", json=NODES[name])
        assert submitted.status_code == 200, submitted.text
        while (status := comfy.get(submitted.json()["polling_url"]).json())["status"] == "Pending":
            pass
        assert status["status"] == "Ready"
        assert comfy.get(status["result"]["sample"]).headers["content-type"].startswith("image/")


def test_the_key_of_a_node_comes_as_x_api_key_too(fluxwerk_server):
    body = {"prompt": "x", "width": 256, "height": 256}
    answer = httpx2.post(f"{fluxwerk_server}/proxy/bfl/flux-2-pro/generate", json=body, headers={"x-api-key": "k"})
    assert answer.status_code == 200


@pytest.mark.parametrize(("name", "status"), [("flux-2-pro", 400), ("sora", 404)])
def test_a_node_is_told_what_is_wrong(fluxwerk_server, name, status):
    answer = httpx2.post(f"{fluxwerk_server}/proxy/bfl/{name}/generate", json={})
    assert answer.status_code == status
    assert answer.json()["message"]
