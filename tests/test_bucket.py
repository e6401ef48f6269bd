"""Images in a bucket, over the wire of S3: whole or not at all, and over nothing that was there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import unescape

import httpx2
import pytest
from click.testing import CliRunner

from fluxwerk import Client
from fluxwerk.cli.group import group
from fluxwerk.errors import StorageError
from fluxwerk.imagefile import fault
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.removals import RETRY
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.tasks import KEEP
from fluxwerk.storage import Storage, open_storage
from fluxwerk.testing import FaceToFace
from fluxwerk.testing.face_to_face import Blank
from support.asking import ask, json_of
from support.needed import do_without
from support.process import process

pytest.importorskip("obstore", reason="the extra storage is not installed")

BUCKET = "shop"


class Shelf(BaseHTTPRequestHandler):
    """As much of S3 as an image needs: objects of one bucket, conditional puts, and its errors."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    kinds: dict[str, str | None]
    # The methods that it refuses.
    denied: frozenset[str] = frozenset()

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self._is_denied():
            return
        if self._bucket() != BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif self.headers["if-none-match"] == "*" and self._key() in self.objects:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self.objects[self._key()] = data
            self.kinds[self._key()] = self.headers["content-type"]
            self._answer(200)

    def do_GET(self) -> None:
        if self._is_denied():
            return
        if self._key() in self.objects:
            self._answer(200, self.objects[self._key()])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        if self._is_denied():
            return
        keys = re.findall("<Key>.*?</Key>", asked)
        for key in keys:
            self.objects.pop(unescape(key[5:-6]), None)
        self._answer(200, f"<DeleteResult><Deleted>{''.join(keys)}</Deleted></DeleteResult>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _is_denied(self) -> bool:
        denied = self.command in self.denied
        if denied:
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return denied

    def _bucket(self) -> str:
        return urlsplit(self.path).path.split("/")[1]

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path.removeprefix(f"/{self._bucket()}").removeprefix("/"))

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        kind = self.kinds.get(self._key())
        if kind:
            self.send_header("content-type", kind)
        for name, value in (("content-length", str(len(body))), ("etag", '"it"'), ("last-modified", DATE)):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


DATE = "Wed, 25 Nov 2026 12:00:00 GMT"


@contextmanager
def a_shelf(handler: type[Shelf] | None = None) -> Iterator[str]:
    handler = handler or type("OneShelf", (Shelf,), {"objects": {}, "kinds": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def somebody_elses() -> Iterator[str]:
    if not find_spec("moto"):
        do_without("moto", "a server of S3 by other people comes with `nox -s interop`")
    command = "import sys; from moto.server import main; main(sys.argv[1:])"
    words = [sys.executable, "-W", "ignore", "-c", command, "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        told = next((line for line in process.stderr if "Running on http" in line), "")
        base = told.partition("Running on ")[2].split()[0]
        threading.Thread(target=process.stderr.read, daemon=True).start()
        urllib.request.urlopen(urllib.request.Request(f"{base}/{BUCKET}", method="PUT")).close()
        yield base
        process.kill()


@pytest.fixture(scope="module", params=[a_shelf, somebody_elses], ids=["ours", "moto"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as base:
        yield base


@pytest.fixture(autouse=True)
def environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    said = {"ENDPOINT": address, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "x"}
    for name, value in said.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def denying(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Shelf]]:
    """A bucket of its own whose owner may deny what a server asks."""
    handler = type("DenyingShelf", (Shelf,), {"objects": {}, "kinds": {}})
    with a_shelf(handler) as base:
        monkeypatch.setenv("AWS_ENDPOINT", base)
        yield handler


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Storage:
    return open_storage(f"s3://{BUCKET}/{request.node.name}")


def test_a_name_is_taken_once_and_replaced_only_when_asked(bucket: Storage):
    assert bucket.get("a/fox.png") is None
    assert bucket.put("a/fox.png", b"first").startswith("s3://shop/")
    with pytest.raises(FileExistsError):
        bucket.put("a/fox.png", b"second")
    assert bucket.get("a/fox.png") == b"first"
    bucket.put("a/fox.png", b"second", overwrite=True)
    assert bucket.get("a/fox.png") == b"second"


def test_of_many_who_put_one_name_at_once_one_wins_whole(bucket: Storage):
    taken: list[int] = []

    def put(number: int) -> None:
        try:
            bucket.put("fox.png", bytes([number]) * 100_000)
        except FileExistsError:
            taken.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = set(range(8)) - set(taken)
    assert len(winner) == 1
    assert bucket.get("fox.png") == bytes(winner) * 100_000


def test_a_name_may_hold_what_an_address_would_misread(bucket: Storage):
    bucket.put("a #+%&é ü.png", b"fox")
    assert bucket.get("a #+%&é ü.png") == b"fox"


def test_a_bucket_that_is_not_there_takes_nothing_and_says_so():
    with pytest.raises(StorageError, match="There is no bucket at s3://gone/images"):
        open_storage("s3://gone/images").put("fox.png", b"fox")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda bucket: bucket.put("fox.png", b"fox"), "Nothing can be stored at s3://shop now"),
        (lambda bucket: bucket.get("fox.png"), "fox.png cannot be read from s3://shop now"),
        (lambda bucket: bucket.size("fox.png"), "fox.png cannot be looked up at s3://shop now"),
        (lambda bucket: bucket.remove("fox.png"), "fox.png cannot be removed from s3://shop now"),
    ],
    ids=["put", "get", "size", "remove"],
)
def test_a_failure_says_what_could_not_be_done(denying: type[Shelf], act, told):
    denying.denied = frozenset({"PUT", "GET", "HEAD", "POST"})
    with pytest.raises(StorageError, match=f"^{told}; check its credentials"):
        act(open_storage(f"s3://{BUCKET}"))


def test_a_bucket_that_lets_nothing_be_deleted_can_be_stored_in(denying: type[Shelf]):
    denying.denied = frozenset({"POST"})
    open_storage(f"s3://{BUCKET}").check()
    assert denying.objects, "the small object was stored, and could not be deleted"


def test_an_image_is_deleted_though_the_bucket_fails_at_that_moment(denying: type[Shelf]):
    """The task is gone at once, and its image as soon as the bucket lets it go."""
    books, ahead = Accounts(store=Store(StateFile(), open_storage(f"s3://{BUCKET}"))), 0.0
    with loopback(accounts=books, clock=lambda: time.time() + ahead) as base, httpx2.Client(base_url=base) as http:
        with Client("a-key", base_url=base) as client:
            task = client.generate("a fox", model="flux-2-pro", width=64, height=64).task.id
        denying.denied = frozenset({"POST"})
        path, key = f"/v1/tasks/{task}/image", {"x-key": "a-key"}
        assert http.delete(path, headers=key).json() == {"id": task, "deleted": True}
        assert http.get(path, headers=key).status_code == 404
        assert len(denying.objects) == 1
        denying.denied, ahead, until = frozenset(), RETRY, time.monotonic() + 30
        while denying.objects:
            assert http.get("/v1/tasks", headers=key).json()["tasks"] == []
            assert time.monotonic() < until


def test_a_server_whose_bucket_is_not_there_is_not_ready():
    of = FaceToFace(accounts=Accounts(store=Store(StateFile(), open_storage("s3://gone"))))
    answer = ask(of, "GET", "/readyz", key=None)
    assert (answer.status, json_of(answer)["checks"]["storage"]) == (503, "unavailable")


def test_what_is_removed_is_gone(bucket: Storage):
    bucket.put("fox.png", b"fox")
    assert bucket.size("fox.png") == 3
    bucket.remove("fox.png")
    bucket.remove("fox.png")
    assert (bucket.get("fox.png"), bucket.size("fox.png")) == (None, None)


def test_a_link_opens_one_object_for_whoever_has_it(bucket: Storage):
    bucket.put("a/fox.png", b"fox")
    link = bucket.link("a/fox.png", 60)
    assert link
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"fox"
        assert answer.headers["content-type"] == "image/png"
    assert "Expires=60" in link


@pytest.mark.parametrize("redirects", [True, False], ids=["redirect", "stream"])
def test_a_server_keeps_its_images_in_a_bucket(bucket: Storage, address: str, redirects):
    books = Accounts(store=Store(StateFile(), bucket))
    with loopback(accounts=books, redirects=redirects) as base:
        store = urlsplit(address).netloc
        with Client("a-key", base_url=base, delivery_hosts=[store] if redirects else ()) as client:
            image = client.generate("a fox", model="flux-2-pro", width=64, height=64, output_format="png")
            link = client.wait(image.task).url or ""
        with urllib.request.urlopen(link) as answer:
            assert answer.headers["content-type"] == "image/png"
            assert answer.read() == image.data
            assert (urlsplit(answer.url).netloc == store) is redirects
        [task] = books.tasks.all(time.time())
    assert bucket.get(task.image) == image.data


def test_the_commands_meet_in_a_bucket(bucket: Storage, address: str, request: pytest.FixtureRequest, tmp_path: Path):
    place = ("--storage", f"s3://{BUCKET}/{request.node.name}", "--deliver", "redirect")
    with process("--state", tmp_path / "state", *place) as (base, _):
        words = [
            "generate",
            "a fox",
            "--base-url",
            base,
            "--width",
            "64",
            "--height",
            "64",
            "-o",
            str(tmp_path / "a.png"),
        ]
        key = {"BFL_API_KEY": "a-key"}
        refused = CliRunner().invoke(group, words, env=key)
        told = CliRunner().invoke(group, [*words, "--delivery-host", urlsplit(address).netloc], env=key)
    assert "a delivery URL that may not be followed" in refused.stderr
    assert told.exit_code == 0, told.output
    assert fault((tmp_path / "a.png").read_bytes()) is None
    assert not list((tmp_path / "state" / "images").iterdir())


def test_an_image_that_is_no_longer_kept_is_gone_from_the_bucket(bucket: Storage):
    of = FaceToFace(accounts=Accounts(store=Store(StateFile(), bucket)))
    of.generate("a fox", model="flux-2-pro", width=64, height=64)
    [task] = of.state.tasks.all(of.clock.now())
    assert bucket.get(task.image)
    of.clock.sleep(KEEP + 1)
    of.state.forget()
    of.state.remove_files()
    assert bucket.get(task.image) is None


def test_a_batch_ends_in_a_bucket_and_overwrites_nothing(
    bucket: Storage, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("prompt,size,output\nfox,64x64,fox.png\nowl,64x64,\n")
    bucket.put("fox.png", b"somebody's work")
    with loopback(Blank()) as base:
        place = f"s3://{BUCKET}/{request.node.name}"
        words = ["batch", "run", "a.csv", "-o", place, "--name", "{index}.{ext}", "--base-url", base]
        result = CliRunner().invoke(group, words, env={"BFL_API_KEY": "a-key"})
    assert result.exit_code == 0, result.output
    assert bucket.get("fox.png") == b"somebody's work"
    images = [bucket.get(name) or b"" for name in ("fox-2.png", "2.png")]
    assert [fault(image) for image in images] == [None, None]
    assert b'"prompt": "owl"' in (bucket.get("2.png.json") or b"")
