"""What the live service lets pass in silence: refused by a strict server, and named by any other."""

from __future__ import annotations

import json
import logging

import httpx2
import pytest

from fluxwerk import Client, InvalidRequestError, get_model
from fluxwerk.server import strictness
from fluxwerk.server.strictness import HEADER
from support.asking import PRO, ask, face, fault, json_of, kept, post
from support.images import png, text

IMAGE = text(png(256, 256))
MANY = {f"input_image_{number}" if number > 1 else "input_image": IMAGE for number in range(1, 10)}
# Path, fields beside the prompt, the field that is named, and what is said of it.
ODD = [
    (PRO, {"safety_tolerence": 2}, "safety_tolerence", "unknown_field", "did you mean 'safety_tolerance'?"),
    (PRO, {"aspect_ratio": "16:9"}, "aspect_ratio", "unknown_field", "give width and height"),
    (PRO, {"prompt_upsampling": False}, "prompt_upsampling", "unknown_field", "did you mean 'disable_pup'?"),
    (PRO, {"n": 4}, "n", "unknown_field", "a submit makes one image"),
    (PRO, {"frobnicate": None}, "frobnicate", "unknown_field", "flux-2-pro has no such field"),
    (PRO, MANY, "input_image_9", "surplus_reference", "takes at most 8 images"),
    ("/v1/flux-2-klein-4b", dict(list(MANY.items())[:5]), "input_image_5", "surplus_reference", "at most 4 images"),
    ("/v1/flux-3-image", {"images": [IMAGE] * 11}, "images", "surplus_reference", "only the first 10 are used"),
    (PRO, {"width": 1001}, "width", "off_grid", "1001 is not a multiple of 16; the nearest size below is 992"),
    (PRO, {"width": 1024, "height": 1080}, "height", "off_grid", "the nearest size below is 1072"),
]


@pytest.mark.parametrize(("path", "fields", "name", "kind", "reason"), ODD)
def test_a_strict_server_refuses_what_the_live_one_ignores(path, fields, name, kind, reason):
    of = face(strict=True)
    answer = post(of, {"prompt": "x", **fields}, path)
    [entry] = json_of(answer)["detail"]

    assert (answer.status, entry["loc"], entry["type"]) == (422, ["body", name], kind)
    assert reason in entry["msg"]
    assert kept(of.state) == {}


@pytest.mark.parametrize(("path", "fields", "name", "kind", "reason"), ODD)
def test_any_other_server_names_it_in_a_header_and_a_line_of_its_log(path, fields, name, kind, reason, caplog):
    caplog.set_level(logging.WARNING, "fluxwerk.server")
    answer = post(face(), {"prompt": "x", **fields}, path)

    assert answer.status == 200
    assert answer.headers[HEADER].startswith(f"{name}: ")
    assert reason in answer.headers[HEADER]
    [line] = caplog.messages
    assert name in line
    assert reason in line


@pytest.mark.parametrize("strict", [True, False])
def test_a_body_without_oddities_is_taken_without_a_word(strict, caplog):
    fields = {"prompt": "x", "width": 1024, "height": 0, "input_image": IMAGE, "input_image_8": IMAGE, "seed": None}
    answer = post(face(strict=strict), fields)

    assert answer.status == 200
    assert HEADER not in answer.headers
    assert caplog.messages == []


def test_a_strict_server_names_everything_at_once():
    answer = post(face(strict=True), {"promt": "x", "width": 1001, "seed": "y"})

    assert {(entry["loc"][1], entry["type"]) for entry in json_of(answer)["detail"]} == {
        ("prompt", "missing"),
        ("seed", "int_parsing"),
        ("width", "off_grid"),
        ("promt", "unknown_field"),
    }


def test_fill_of_a_strict_server_says_which_field_holds_the_image():
    answer = post(face(strict=True), {"input_image": IMAGE}, "/v1/flux-pro-1.0-fill")

    assert [entry["msg"] for entry in json_of(answer)["detail"]] == [
        "Field required",
        "flux-pro-1.0-fill has no such field; did you mean 'image'?",
    ]


def test_a_field_name_cannot_break_out_of_the_header():
    """An unknown field name cannot break out of the header, and the value of the field is not repeated there."""
    answer = post(face(), {"prompt": "x", "a\r\nset-cookie: b": "CANARY", "é" * 300: 1})
    told = answer.headers[HEADER]

    assert answer.status == 200
    assert told.isascii()
    assert told.isprintable()
    assert "CANARY" not in told
    assert len(told) < 400


def test_a_body_of_many_unknown_fields_gets_ten_remarks():
    given = {"prompt": "x", **{f"field_{number}": 1 for number in range(10_000)}}

    assert len(strictness.remarks(get_model("pro"), given)) == 10


def test_a_size_beyond_all_bounds_is_left_to_the_areas_check():
    answer = post(face(), {"prompt": "x", "width": 10**400 + 1})

    assert (answer.status, json_of(answer)["detail"][0]["type"]) == (422, "too_many_pixels")


def test_a_body_that_is_not_an_object_is_refused_once():
    assert fault(ask(face(strict=True), "POST", PRO, b"[]"))[:2] == (422, ["body"])


@pytest.mark.parametrize("face_to_face", [{"strict": True}], indirect=True)
def test_the_fixture_face_to_face_is_strict_by_a_parameter(face_to_face):
    with pytest.raises(InvalidRequestError, match="did you mean 'seed'"):
        face_to_face.generate("a fox", extra={"sed": 1})


@pytest.mark.parametrize("fluxwerk_server", [{"strict": True}], indirect=True)
def test_the_fixture_fluxwerk_server_is_strict_by_a_parameter(fluxwerk_server):
    with Client("a-key", base_url=fluxwerk_server) as client:
        with pytest.raises(InvalidRequestError, match="1001 is not a multiple of 16"):
            client.generate("a fox", width=1001, height=64)
        assert client.generate("a fox", width=64, height=64).width == 64


def test_the_header_is_published_for_submits_alone(fluxwerk_server):
    paths = json.loads(httpx2.get(f"{fluxwerk_server}/openapi.json").text)["paths"]

    assert "X-Fluxwerk-Warning" in paths[PRO]["post"]["responses"]["200"]["headers"]
    assert "X-Fluxwerk-Warning" not in paths["/v1/get_result"]["get"]["responses"]["200"]["headers"]
