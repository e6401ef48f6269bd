"""What the page asks beyond the API: its files, images in every size, and news."""

from __future__ import annotations

import io
import json
import zipfile

import httpx2
import pytest
from PIL import Image

from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.memory import MemoryStorage
from fluxwerk.server.state.store import Store
from fluxwerk.testing import loopback
from support.asking import PRO
from support.sketching import Sketching

KEY = {"x-key": "a-key"}


@pytest.fixture(scope="module")
def base():
    with loopback() as found:
        yield found


def made(base: str, key: str = "a-key", **fields: object) -> str:
    """Make an image, and return its task's id."""
    body = {"prompt": "a heron in reeds", "width": 256, "height": 128, **fields}
    submitted = httpx2.post(base + PRO, json=body, headers={"x-key": key}).json()
    while httpx2.get(submitted["polling_url"]).json()["status"] == "Pending":
        pass
    return submitted["id"]


@pytest.mark.parametrize("path", ["/", "/ops"])
def test_a_page_loads_from_its_own_server_only(base, path):
    answer = httpx2.get(base + path)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_has_not_changed_is_not_sent_again(base):
    tag = httpx2.get(base + "/page/style.css").headers["etag"]
    assert httpx2.get(base + "/page/style.css", headers={"if-none-match": tag}).status_code == 304


def test_an_image_is_served_with_a_name_and_in_a_sandbox(base):
    name = made(base)
    answer = httpx2.get(f"{base}/v1/tasks/{name}/image", headers=KEY)
    assert Image.open(io.BytesIO(answer.content)).size == (256, 128)
    assert 'inline; filename="20' in answer.headers["content-disposition"]
    assert f"a-heron-in-reeds-{name[:8]}.jpeg" in answer.headers["content-disposition"]
    assert "sandbox" in answer.headers["content-security-policy"]
    saved = httpx2.get(f"{base}/v1/tasks/{name}/image?download", headers=KEY)
    assert saved.headers["content-disposition"].startswith("attachment")


def test_a_thumbnail_is_small_and_keeps_the_shape(base):
    name = made(base, width=2048, height=1024)
    for _ in range(2):
        answer = httpx2.get(f"{base}/v1/tasks/{name}/thumbnail", headers=KEY)
        assert answer.headers["content-type"] == "image/webp"
        assert Image.open(io.BytesIO(answer.content)).size == (640, 320)


@pytest.mark.parametrize("what", ["image", "thumbnail"])
def test_nobody_sees_the_image_of_another_account(base, what):
    name = made(base)
    assert httpx2.get(f"{base}/v1/tasks/{name}/{what}", headers={"x-key": "another"}).status_code == 404
    assert httpx2.get(f"{base}/v1/tasks/{name}/{what}").status_code == 403
    assert httpx2.get(f"{base}/v1/archive?ids={name}", headers={"x-key": "another"}).status_code == 404


def test_several_images_are_packed_into_a_zip_and_onto_a_sheet(base):
    names = [made(base), made(base, output_format="png")]
    packed = httpx2.get(f"{base}/v1/archive?ids={','.join(names)}", headers=KEY).content
    assert sorted(name[-4:] for name in zipfile.ZipFile(io.BytesIO(packed)).namelist()) == [".png", "jpeg"]
    sheet = httpx2.get(f"{base}/v1/sheet?ids={','.join(names)}", headers=KEY).content
    assert Image.open(io.BytesIO(sheet)).size == (2 * 384 + 3 * 24, 384 + 2 * 24)


@pytest.mark.parametrize("ids", ["", ",", ",".join("x" * 201)])
def test_a_choice_of_none_or_of_too_many_is_refused(base, ids):
    assert httpx2.get(f"{base}/v1/archive?ids={ids}", headers=KEY).status_code == 422


def test_a_deleted_image_is_gone(base):
    name = made(base)
    link = httpx2.get(f"{base}/v1/get_result", params={"id": name}).json()["result"]["sample"]
    places = [link, *(f"{base}/v1/tasks/{name}{what}" for what in ("", "/image", "/thumbnail"))]
    assert [httpx2.get(place, headers=KEY).status_code for place in places] == [200] * 4
    assert httpx2.delete(f"{base}/v1/tasks/{name}/image", headers=KEY).json()["deleted"] is True
    assert [httpx2.get(place, headers=KEY).status_code for place in places] == [404] * 4


class FlushedStore(Store):
    """A store that counts the tasks of each flush."""

    def __init__(self) -> None:
        super().__init__(StateFile(), MemoryStorage())
        self.flushed_tasks: list[int] = []

    async def flushed(self) -> None:
        self.flushed_tasks.append(len(self.database.ask("select id from task")))


def test_a_deletion_is_on_the_disk_before_it_is_answered():
    store = FlushedStore()
    with loopback(accounts=Accounts(store=store)) as base:
        name = made(base)
        assert store.flushed_tasks[-1] == 1
        assert httpx2.delete(f"{base}/v1/tasks/{name}/image", headers=KEY).status_code == 200
        assert store.flushed_tasks[-1] == 0


def test_a_task_that_runs_is_not_deleted(base):
    body = {"prompt": "fluxwerk:pending-forever", "width": 64, "height": 64}
    name = httpx2.post(base + PRO, json=body, headers=KEY).json()["id"]
    assert httpx2.delete(f"{base}/v1/tasks/{name}/image", headers=KEY).status_code == 409


def test_an_image_by_its_url_goes_through_the_guard(base):
    own = f"{base}/page/icon.svg"
    answer = httpx2.post(base + "/v1/fetch", json={"url": own}, headers=KEY)
    assert "without a PNG, JPEG or WebP" in answer.json()["message"]
    with loopback(allow=()) as guarded:
        answer = httpx2.post(guarded + "/v1/fetch", json={"url": own}, headers=KEY)
        assert (answer.status_code, "cannot be fetched" in answer.json()["message"]) == (422, True)
    assert httpx2.post(base + "/v1/fetch", json={"url": "file:///etc/passwd"}, headers=KEY).status_code == 422
    assert httpx2.post(base + "/v1/fetch", json={"url": own}).status_code == 403


def test_news_tell_how_a_task_stands_and_that_it_has_ended():
    engine, told = Sketching(), []
    with loopback(engine) as base:
        body = {"prompt": "a heron", "width": 64, "height": 64}
        name = httpx2.post(base + PRO, json=body, headers=KEY).json()["id"]
        with httpx2.stream("GET", base + "/v1/events?seconds=20", headers=KEY) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {") and name in line:
                    told.append(json.loads(line.removeprefix("data: ")))
                    if told[-1]["stage"] == "ended":
                        break
                    engine.let_go()
    assert "running" in {row["stage"] for row in told}
    assert told[-1]["status"] == "Ready"


def test_the_numbers_of_the_operator_are_for_this_machine(base):
    made(base)
    numbers = httpx2.get(base + "/v1/ops").json()
    assert numbers["ended"]["Ready"] >= 1
    assert numbers["render_seconds"]["count"] >= 1
    assert httpx2.get(base + "/v1/ops", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 403


def test_a_task_is_found_by_its_tags(base):
    name, other = made(base, "tagger"), made(base, "tagger")
    key = {"x-key": "tagger"}
    body = {"tags": ["poster", " für Anna ", "poster"]}
    tagged = httpx2.put(f"{base}/v1/tasks/{name}/tags", json=body, headers=key).json()
    assert tagged["tags"] == ["poster", "für Anna"]
    httpx2.put(f"{base}/v1/tasks/{other}/tags", json={"tags": ["post"]}, headers=key)
    found = httpx2.get(f"{base}/v1/tasks", params={"tag": "poster"}, headers=key).json()["tasks"]
    assert [row["id"] for row in found] == [name]
    assert httpx2.put(f"{base}/v1/tasks/{name}/tags", json={"tags": []}, headers=key).json()["tags"] == []


@pytest.mark.parametrize("tags", [["a|b"], ["a,b"], [""], ["x" * 41], ["t"] * 17, "tag", None, [5]])
def test_what_is_no_tag_is_refused(base, tags):
    name = made(base)
    assert httpx2.put(f"{base}/v1/tasks/{name}/tags", json={"tags": tags}, headers=KEY).status_code == 422


def test_a_doubt_that_is_none_cannot_be_settled(base):
    for verdict, status in (("charged", 404), ("perhaps", 422)):
        body, headers = {"verdict": verdict}, {"origin": base}
        assert httpx2.post(f"{base}/v1/ops/doubts/x", json=body, headers=headers).status_code == status
    assert httpx2.post(f"{base}/v1/ops/doubts/x", json={"verdict": "charged"}).status_code == 403
