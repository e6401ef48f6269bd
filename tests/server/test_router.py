"""What the server answers, without a socket and on a pretend clock."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxwerk import catalog, get_model
from fluxwerk.drive import drive
from fluxwerk.engines.offline import OfflineEngine
from fluxwerk.server.state import links
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.store import DiskStore
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import BASE
from fluxwerk.types import HttpRequest, Response
from support.asking import PRO, Broken, ask, face, fault, json_of, kept, poll, post, size_of, submit_and_fetch
from support.images import giant, jpeg, png, text


def test_a_submit_answers_id_polling_url_cost_and_megapixels():
    answer = post(face(), {"prompt": "x", "width": 1920, "height": 1080})
    body = json_of(answer)
    assert answer.status == 200
    assert body == {
        "id": body["id"],
        "polling_url": f"{BASE}/v1/get_result?id={body['id']}",
        "cost": 4.5,
        "input_mp": 0,
        "output_mp": 1.98,
    }


def test_an_id_is_a_lower_case_uuid_of_version_4():
    identity = json_of(post(face(), {"prompt": "x"}))["id"]
    assert str(uuid.UUID(identity)) == identity
    assert uuid.UUID(identity).version == 4


@pytest.mark.parametrize("body", [{"prompt": "x"}, {}, b"no JSON"])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer key"}, {"x-api-key": "key"}, {"x-key": ""}])
def test_without_a_key_the_answer_is_403_before_the_body_is_judged(body, headers):
    answer = ask(face(), "POST", PRO, body, None, **headers)
    assert answer.status == 403
    assert json_of(answer)["detail"] == "Not authenticated"


@pytest.mark.parametrize("key", ["two words", "käse", "k" * 513, "tab\tkey"])
def test_a_malformed_key_is_named_as_such(key):
    answer = post(face(), {}, key=key)
    assert (answer.status, json_of(answer)["detail"]) == (422, "Invalid API key format")


def test_an_unknown_key_is_refused_where_keys_are_configured():
    guarded = face(accounts=Accounts(["known"]))
    assert post(guarded, {"prompt": "x"}, key="known").status == 200
    answer = post(guarded, {"prompt": "x"}, key="unknown")
    assert (answer.status, json_of(answer)["detail"]) == (403, "Not authenticated - Invalid Authentication")


def test_an_error_is_told_to_both_kinds_of_readers():
    for answer in (post(face(), {}), post(face(), {}, key=None), ask(face(), "GET", "/v1/nothing")):
        body = json_of(answer)
        assert set(body) == {"detail", "error", "message"}
        assert isinstance(body["error"], str)
        assert isinstance(body["message"], str)
    assert json_of(post(face(), {}))["message"] == "body.prompt: Field required"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/v1/flux-9", "/v1/tasks/a/b", "/V1/flux-2-pro", "/v1/flux-2-pro/"])
def test_an_unknown_path_is_not_found_before_the_key_is_asked(method, path):
    answer = ask(face(), method, path, key=None)
    assert (answer.status, json_of(answer)["detail"]) == (404, "Not Found")


@pytest.mark.parametrize("path", ["/v1/get_result", "/v1/credits", PRO])
def test_a_known_path_with_another_method_is_not_allowed(path):
    answer = ask(face(), "DELETE", path)
    assert (answer.status, json_of(answer)["detail"]) == (405, "Method Not Allowed")


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("/v1/flux-kontext", "flux-kontext-pro"),
        ("/v1/flux-kontext-pro", "flux-kontext-pro"),
        ("/v1/flux-pro-1.1-raw", "flux-pro-1.1-raw"),
        ("/v1/flux-fill", "flux-pro-1.0-fill"),
        ("/v1/flux-pro-1.0-fill", "flux-pro-1.0-fill"),
    ],
)
def test_the_guides_paths_are_served_too(alias, model):
    of = face()
    answer = post(of, {"prompt": "x", "image": text(png(256, 256))}, alias)
    assert kept(of.state)[json_of(answer)["id"]].model.name == model


def test_raw_is_ultra_with_raw_switched_on():
    of = face()
    answer = post(of, {"prompt": "x"}, "/v1/flux-pro-1.1-raw")
    assert kept(of.state)[json_of(answer)["id"]].order.options["raw"] is True


def test_a_webhook_submit_answers_the_superset():
    body = json_of(post(face(), {"prompt": "x", "webhook_url": "https://me.example/hook", "webhook_secret": "CANARY"}))
    assert {"id", "polling_url", "cost", "input_mp", "output_mp"} < set(body)
    assert (body["status"], body["webhook_url"]) == ("Pending", "https://me.example/hook")
    assert "CANARY" not in json.dumps(body)


def test_a_25th_task_in_flight_is_too_many():
    of = face(seconds=5)
    assert [post(of, {"prompt": "x"}).status for _ in range(25)] == [200] * 24 + [429]
    refused = post(of, {"prompt": "x"})
    assert refused.headers["retry-after"] == str(json_of(refused)["retry_after"]) == "1"
    assert json_of(refused)["error"] == "rate_limit_exceeded"
    assert len(kept(of.state)) == 24


def test_kontext_max_has_six_slots_of_its_own():
    of = face(seconds=5)
    path = "/v1/flux-kontext-max"
    assert [post(of, {"prompt": "x"}, path).status for _ in range(7)] == [200] * 6 + [429]
    assert [post(of, {"prompt": "x"}).status for _ in range(25)] == [200] * 24 + [429]
    assert post(of, {"prompt": "x"}, "/v1/flux-kontext").status == 429


def test_a_slot_is_free_when_its_task_has_ended_and_not_before():
    of = face(seconds=5)
    for _ in range(24):
        post(of, {"prompt": "x"})
    of.clock.sleep(4.999)
    assert post(of, {"prompt": "x"}).status == 429
    of.clock.sleep(0.001)
    assert post(of, {"prompt": "x"}).status == 200


def test_an_earlier_submit_is_not_overtaken_while_it_fetches():
    """A submit that came first is not overtaken while its images are fetched."""
    of = face(seconds=5, urls={"http://host.test/x": png(64, 64)})
    answering = of.router.answer(
        HttpRequest("POST", BASE + PRO, b'{"prompt":"x","input_image":"http://host.test/x"}', headers={"x-key": "key"})
    )
    next(answering)
    assert [post(of, {"prompt": "x"}).status for _ in range(24)] == [200] * 23 + [429]
    with pytest.raises(StopIteration) as done:
        answering.send(Response(200, {}, png(64, 64)))
    assert done.value.value.status == 200
    assert len(kept(of.state)) == 24


def test_another_account_has_slots_of_its_own():
    of = face(seconds=5)
    for _ in range(24):
        post(of, {"prompt": "x"})
    assert post(of, {"prompt": "x"}, key="other").status == 200


def test_without_enough_credits_nothing_is_booked():
    of = face(accounts=Accounts(credit=Decimal("4.4")))
    refused = post(of, {"prompt": "x", "width": 1920, "height": 1080})
    assert (refused.status, json_of(refused)["error"]) == (402, "insufficient_credits")
    assert kept(of.state) == {}
    assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 4.4}
    assert post(of, {"prompt": "x"}).status == 200


def test_credits_are_booked_on_acceptance():
    of = face(seconds=60, accounts=Accounts(credit=Decimal(10)))
    post(of, {"prompt": "x"})
    assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 7}


def test_credits_come_back_when_the_engine_fails():
    of = face(engine=Broken(), accounts=Accounts(credit=Decimal(10)))
    body = poll(of, post(of, {"prompt": "x"}))
    assert (body["status"], body["cost"], body["result"]) == ("Error", 0, None)
    assert body["details"] == {"error": "RuntimeError: no paint left"}
    assert json_of(ask(of, "GET", "/v1/credits")) == {"credits": 10}


def test_a_price_that_is_not_public_is_null_and_charges_nothing():
    of = face(accounts=Accounts(credit=Decimal(0)))
    body = json_of(post(of, {"image": text(png(64, 64))}, "/v1/flux-tools/deblur-v1"))
    assert body["cost"] is None


def test_the_balance_needs_a_key():
    assert ask(face(), "GET", "/v1/credits", key=None).status == 403


def test_an_unknown_task_is_not_found_in_a_body_like_any_other():
    answer = ask(face(), "GET", "/v1/get_result?id=nobody")
    assert (answer.status, json_of(answer)["id"], json_of(answer)["status"]) == (200, "nobody", "Task not found")


@pytest.mark.parametrize("query", ["", "?", "?id=", "?other=1"])
def test_a_poll_without_an_id_is_invalid(query):
    answer = ask(face(), "GET", "/v1/get_result" + query)
    assert fault(answer) == (422, ["query", "id"], "Field required")


def test_a_repeated_id_is_tolerated():
    of = face()
    submitted = json_of(post(of, {"prompt": "x"}))
    assert json_of(ask(of, "GET", f"{submitted['polling_url']}&id={submitted['id']}"))["status"] == "Ready"


@pytest.mark.parametrize("key", [None, "key", "another", "mal formed"])
def test_a_poll_needs_no_key(key):
    of = face()
    assert poll(of, post(of, {"prompt": "x"}), key)["status"] == "Ready"


def test_a_task_is_pending_for_as_long_as_it_takes():
    of = face(seconds=5)
    submitted = post(of, {"prompt": "x"})
    of.clock.sleep(4.9)
    assert (poll(of, submitted)["status"], poll(of, submitted)["cost"]) == ("Pending", None)
    of.clock.sleep(0.1)
    body = poll(of, submitted)
    assert (body["status"], body["cost"]) == ("Ready", 3)
    assert body["result"]["duration"] == 5


def test_an_image_keeps_the_name_of_its_engine_when_another_one_renders(tmp_path):
    store = DiskStore(tmp_path)
    submitted = post(face(accounts=Accounts(store=store)), {"prompt": "a fox"})
    of = face(accounts=Accounts(store=store), engine=OfflineEngine())
    assert poll(of, submitted)["result"]["engine"] == "blank"
    assert [row["engine"] for row in json_of(ask(of, "GET", "/v1/tasks"))["tasks"]] == ["blank"]
    store.close()


def test_an_image_that_the_release_before_finished_has_an_unknown_engine():
    of = face()
    submitted = post(of, {"prompt": "a fox"})
    with of.state.store.database.write() as transaction:
        transaction.run("update task set engine = null")
    assert poll(of, submitted)["result"]["engine"] == "unknown"
    assert [row["engine"] for row in json_of(ask(of, "GET", "/v1/tasks"))["tasks"]] == ["unknown"]


def test_a_ready_poll_names_what_was_made():
    of = face()
    submitted = post(of, {"prompt": "a fox", "seed": 7, "output_format": "webp"})
    result = poll(of, submitted)["result"]
    assert (result["prompt"], result["seed"], result["engine"]) == ("a fox", 7, "blank")
    where = urlsplit(result["sample"])
    assert where.path.endswith("/sample.webp")
    assert [len(part) for part in where.path.split("/")] == [0, 7, 2, 14, 32, 11]
    assert "rsct=image%2Fwebp" in where.query


def test_a_seed_is_drawn_when_none_is_given():
    of = face()
    seeds = {poll(of, post(of, {"prompt": "x"}))["result"]["seed"] for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_link_opens_the_image_for_ten_minutes():
    of = face()
    url, first = submit_and_fetch(of)
    assert (first.status, first.headers["content-type"], first.body) == (200, "image/jpeg", png(1024, 1024))
    assert first.headers["cache-control"] == "private, max-age=600"
    of.clock.sleep(599.9)
    assert ask(of, "GET", url, key=None).status == 200
    of.clock.sleep(0.1)
    answer = ask(of, "GET", url, key=None)
    assert (answer.status, json_of(answer)["detail"]) == (403, "Forbidden: the link has expired")


def test_a_link_may_be_asked_for_its_head():
    of = face()
    url, _ = submit_and_fetch(of)
    assert ask(of, "HEAD", url, key=None).status == 200


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("sig=", "sig=A"),
        ("sample.jpeg", "sample.png"),
        ("rsct=image%2Fjpeg", "rsct=text%2Fhtml"),
        ("sp=r", "sp=rw"),
        ("se=20", "se=21"),
        ("?", "?x&"),
    ],
)
def test_an_altered_link_is_forbidden(true, false):
    of = face()
    url, _ = submit_and_fetch(of)
    assert true in url
    assert ask(of, "GET", url.replace(true, false, 1), key=None).status == (200 if false == "?x&" else 403)


def test_an_image_has_no_address_without_its_signature():
    of = face()
    url, _ = submit_and_fetch(of)
    assert ask(of, "GET", url.partition("?")[0], key="key").status == 403


def test_another_poll_gives_a_fresh_link():
    of = face()
    submitted = post(of, {"prompt": "x"})
    old = poll(of, submitted)["result"]["sample"]
    of.clock.sleep(601)
    fresh = poll(of, submitted)["result"]["sample"]
    assert (ask(of, "GET", old).status, ask(of, "GET", fresh).status) == (403, 200)


def test_an_image_is_forgotten_after_an_hour():
    of = face()
    submitted = post(of, {"prompt": "x"})
    of.clock.sleep(3599)
    late = poll(of, submitted)["result"]["sample"]
    of.clock.sleep(1)
    assert poll(of, submitted)["status"] == "Task not found"
    answer = ask(of, "GET", late, key=None)
    assert (answer.status, json_of(answer)["message"]) == (404, "This image is no longer kept.")


def test_a_folder_without_a_picture_is_not_found():
    of = face(seconds=60)
    post(of, {"prompt": "x"})
    (job,) = kept(of.state).values()
    of.state.store.files.remove(job.image)
    where = links.path(job.folder, "jpeg")
    query = links.sign(of.state.secret, where, "image/jpeg", of.clock.now() + 9)
    assert ask(of, "GET", f"{where}?{query}").status == 404


@pytest.mark.parametrize("path", ["/results", "/results/x", "/results/a/b/c/d/sample.png"])
def test_other_result_paths_are_not_found(path):
    assert ask(face(), "GET", path).status == 404


@pytest.mark.parametrize("sizes", [{}, {"width": 0, "height": 0}, {"width": None, "height": None}, {"width": 0}])
def test_zero_null_and_absent_sizes_give_the_same_image(sizes):
    of = face()
    assert size_of(of, post(of, {"prompt": "x", **sizes})) == (1024, 1024)
    reference = {"input_image": text(png(640, 480))}
    assert size_of(of, post(of, {"prompt": "x", **reference, **sizes})) == (640, 480)


def test_an_off_grid_size_is_floored_in_the_image_and_billed_as_requested():
    of = face()
    answer = post(of, {"prompt": "x", "width": 1920, "height": 1080})
    assert size_of(of, answer) == (1920, 1072)
    assert (json_of(answer)["output_mp"], json_of(answer)["cost"]) == (1.98, 4.5)


@given(st.integers(64, 4096), st.integers(64, 1024))
def test_every_flux_2_size_is_floored_to_sixteens(width, height):
    of = face()
    made = size_of(of, post(of, {"prompt": "x", "width": width, "height": height}))
    assert made == (width // 16 * 16, height // 16 * 16)


@pytest.mark.parametrize(
    ("path", "sizes"),
    [
        (PRO, {"width": 2049, "height": 2048}),
        (PRO, {"width": 10**9, "height": 10**9}),
        (PRO, {"width": 4097}),
        (PRO, {"height": 10**400}),
        ("/v1/flux-tools/outpainting-v1", {"width": 4096, "height": 2048, "input_image": text(png(64, 64))}),
    ],
)
def test_more_than_four_megapixels_are_not_made(path, sizes):
    of = face()
    answer = post(of, {"prompt": "x", **sizes}, path)
    assert answer.status == 422
    assert "4194304 pixels" in json_of(answer)["message"]
    assert kept(of.state) == {}


@pytest.mark.parametrize(
    ("output_format", "side", "status"),
    [("jpeg", 65_503, 200), ("jpeg", 65_504, 422), ("webp", 16_383, 200), ("webp", 16_384, 422), ("png", 65_536, 200)],
)
def test_a_side_too_long_for_its_format_is_refused(output_format, side, status):
    """A side that no file of its format can have is refused before it is paid for."""
    of = face()
    answer = post(of, {"prompt": "x", "width": side, "height": 64, "output_format": output_format})
    assert answer.status == status
    assert len(kept(of.state)) == (status == 200)
    if status != 200:
        assert fault(answer)[1] == ["body", "output_format"]


def test_the_largest_size_is_made():
    of = face()
    assert size_of(of, post(of, {"prompt": "x", "width": 2048, "height": 2048})) == (2048, 2048)


def test_margins_that_would_fill_the_memory_are_refused():
    margins = dict.fromkeys(("top", "bottom", "left", "right"), 2048)
    source = {"image": text(png(256, 70_000))}
    assert post(face(), {**source, **margins}, "/v1/flux-pro-1.0-expand").status == 422


@pytest.mark.parametrize("width", [255, 1441, 1000])
def test_flux_1_sizes_are_enforced(width):
    status, place, _ = fault(post(face(), {"prompt": "x", "width": width}, "/v1/flux-pro-1.1"))
    assert (status, place) == (422, ["body", "width"])


def test_expand_adds_its_margins_and_moves_the_source():
    of = face()
    answer = post(of, {"image": text(png(300, 256)), "left": 10, "top": 20, "right": 5}, "/v1/flux-pro-1.0-expand")
    assert size_of(of, answer) == (315, 276)
    assert kept(of.state)[json_of(answer)["id"]].order.canvas.offset == (10, 20)


@pytest.mark.parametrize(
    ("wanted", "offset"),
    [
        ({}, (24, 16)),
        ({"reference_offset_x": -5}, (-5, 16)),
        ({"reference_offset_y": 0}, (24, 0)),
        ({"reference_offset_x": 10**100, "reference_offset_y": -(10**100)}, (112, -64)),
    ],
)
def test_outpainting_puts_the_source_where_it_is_wanted_or_in_the_middle(wanted, offset):
    of = face()
    fields = {"input_image": text(png(64, 64)), "width": 112, "height": 96, **wanted}
    answer = post(of, fields, "/v1/flux-tools/outpainting-v1")
    assert size_of(of, answer) == (112, 96)
    assert kept(of.state)[json_of(answer)["id"]].order.canvas.offset == offset


def attached(of: FaceToFace, answer: Response) -> tuple[bytes, ...]:
    assert answer.status == 200
    return of.orders[-1].references


def test_an_image_comes_as_a_url_as_base64_or_as_a_data_uri():
    picture = jpeg(80, 70)
    of = face(urls={"https://host.test/x.jpg": picture})
    for source in ("https://host.test/x.jpg", text(picture), f"data:image/jpeg;base64,{text(picture)}"):
        assert attached(of, post(of, {"prompt": "x", "input_image": source})) == (picture,)


def test_references_keep_their_order_and_the_ninth_is_ignored():
    pictures = [png(64 + n, 64) for n in range(9)]
    fields = {f"input_image_{n}" if n > 1 else "input_image": text(pictures[n - 1]) for n in range(9, 0, -1)}
    of = face()
    answer = post(of, {"prompt": "x", **fields})
    assert attached(of, answer) == tuple(pictures[:8])
    assert json_of(answer)["input_mp"] == 0.03


def test_an_engine_can_read_what_the_client_wrote_itself():
    of = face()
    body = {"prompt": "x", "width": 100, "seed": None, "safety_tolerance": 4, "user": "me", "unheard_of": 1}
    hook = {"webhook_url": "https://me.example/hook", "webhook_secret": "s3cret"}

    submitted = json_of(post(of, {**body, **hook, "input_image_3": text(png(64, 64))}))

    order = kept(of.state)[submitted["id"]].order
    assert order.id == submitted["id"]
    assert order.asked == {"width": 100, "seed": None, "safety_tolerance": 4, "user": "me"}
    assert order.names == ("input_image_3",)


def test_flux_3_takes_one_image_or_a_list():
    of, picture = face(), png(256, 256)
    for images in (text(picture), [text(picture)], [text(picture)] * 10):
        answer = post(of, {"prompt": "x", "images": images}, "/v1/flux-3-image")
        assert set(attached(of, answer)) == {picture}
    assert kept(of.state)[json_of(answer)["id"]].order.output_format == "png"
    answer = post(of, {"prompt": "x", "images": [text(picture)] * 11}, "/v1/flux-3-image")
    assert len(attached(of, answer)) == 10


def test_fill_takes_its_image_and_its_mask_is_not_billed():
    of, source = face(), text(png(256, 300))
    answer = post(of, {"image": source, "mask": source, "prompt": "x"}, "/v1/flux-pro-1.0-fill")
    order = of.orders[-1]
    assert size_of(of, answer) == (256, 300)
    assert (order.canvas.source, order.canvas.mask, order.references) == (png(256, 300), png(256, 300), ())
    assert json_of(answer)["input_mp"] == 0.07


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (text(png(63, 64)), "is 63×64; it must be at least 64 pixels on each side"),
        (text(png(5000, 4001)), "is 5000×4001; it must be at most 20 megapixels"),
        (text(giant()), "at most 20 megapixels|damaged"),
        ("A" * (28 * 2**20), "is larger than 20 MB"),
        (text(b"<!DOCTYPE html><p>no"), "it is a web page, not an image"),
        (text(b"GIF89a" + b"\0" * 40), "its format is GIF"),
        (text(png(64, 64)[:-20]), "it is cut off or damaged"),
        ("", "it is empty"),
        ("data:image/png;base64,", "it is empty"),
        ("data:nothing", "a data URI must be base64"),
        ("!!!", "the text is not base64"),
        ("bäh", "the text is not base64"),
        ("file:///etc/passwd", "the text is not base64"),
        ("http://nowhere.test/x", "cannot be fetched: it could not be reached"),
        ("http://host.test/page", "it is a web page, not an image"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_used_is_refused_with_the_reason(source, reason):
    of = face(urls={"http://host.test/page": b"<html>"})
    status, place, message = fault(post(of, {"prompt": "x", "input_image": source}))
    assert (status, place) == (422, ["body", "input_image"])
    assert any(part in message for part in reason.split("|"))
    assert kept(of.state) == {}


def test_an_image_whose_host_refuses_is_refused_with_the_status():
    of = face()
    request = HttpRequest("POST", BASE + PRO, b'{"prompt":"x","input_image":"http://h/x"}', headers={"x-key": "key"})
    answer = drive(of.router.answer(request), lambda *_: Response(404), clock=of.clock)
    assert fault(answer)[2] == "Image cannot be fetched: its host answered 404"


@given(st.binary(max_size=60))
def test_no_body_at_all_makes_the_server_stumble(body):
    assert post(face(), body).status == 422 or json.loads(body)["prompt"] is not None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=10)
    | st.sampled_from(["http://x", "data:,", "\0", "\ud800", 10**400, 1e999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "name", ["flux-2-pro", "flux-2-flex", "flux-kontext-max", "flux-pro-1.1-ultra", "flux-3-image", "fill"]
)
@settings(max_examples=60)
@given(data=st.data())
def test_any_json_body_is_accepted_or_refused_with_a_reason(name, data):
    model = get_model(name)
    body = data.draw(JSON | st.dictionaries(st.sampled_from([*model.options, "strange"]), JSON, max_size=5))
    of = face()
    answer = post(of, body, model.paths()[-1])
    assert answer.status in (200, 422)
    assert answer.status == 422 or poll(of, answer)["status"] == "Ready"
    answer.body.decode()


@pytest.mark.parametrize("model", catalog.list_models().values(), ids=lambda model: model.name)
def test_every_path_of_the_catalogue_is_served(model):
    for path in model.paths():
        assert post(face(), {}, path).status in (200, 422)


@given(st.text(), st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"]))
def test_no_path_makes_the_server_stumble(path, method):
    assert ask(face(), method, BASE + "/" + path).status in (403, 404, 405, 422)
