"""Images at Google Cloud and Azure, as far as no account is needed: addresses, settings, links and errors.

The stores that answer are our own, on this machine; the live ones were not tried.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fluxwerk.errors import StorageError
from fluxwerk.storage import Storage, open_storage

pytest.importorskip("obstore", reason="the extra storage is not installed")

SECRET = base64.b64encode(b"CANARY of an account").decode()
SCHEMES = ("gs", "az")


class CloudHandler(BaseHTTPRequestHandler):
    """As much of both clouds as images need; a name that is taken is refused where a put asks for that."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        is_new_only = self.headers["x-goog-if-generation-match"] == "0" or self.headers["if-none-match"] == "*"
        if is_new_only and self._name() in self.objects:
            self._answer(412)
        else:
            self.objects[self._name()] = data
            self._answer(201)

    def do_GET(self) -> None:
        self._answer(200 if self._name() in self.objects else 404, self.objects.get(self._name(), b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self._answer(202 if self.objects.pop(self._name(), None) is not None else 404)

    def do_POST(self) -> None:
        """Delete a batch, as Azure does: requests within a request."""
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        parts: list[str] = []
        for number, name in enumerate(re.findall(r"DELETE (\S+) HTTP/1.1", asked)):
            found = self.objects.pop(unquote(name), None) is not None
            said = "202 Accepted" if found else "404 It is not there\r\nx-ms-error-code: BlobNotFound"
            head = f"--all\r\nContent-Type: application/http\r\nContent-ID: {number}"
            parts.append(f"{head}\r\n\r\nHTTP/1.1 {said}\r\n\r\n\r\n")
        self._answer(202, f"{''.join(parts)}--all--".encode(), {"content-type": "multipart/mixed; boundary=all"})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _name(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _answer(self, status: int, body: bytes = b"", more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        told = {"etag": '"it"', "last-modified": "Wed, 25 Nov 2026 12:00:00 GMT", "x-goog-generation": "1"}
        for name, value in (told | {"content-length": str(len(body))} | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def cloud() -> Iterator[ThreadingHTTPServer]:
    handler = type("OneCloudHandler", (CloudHandler,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what this machine knows of accounts."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)


def settle(monkeypatch: pytest.MonkeyPatch, scheme: str, base: str) -> None:
    """Set what a user sets in the environment, with an address of this machine for that of the cloud."""
    empty = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    account = {"gcs_base_url": base, "disable_oauth": True, **empty}
    settings = {
        "gs": {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)},
        "az": {
            "AZURE_STORAGE_ACCOUNT_NAME": "ours",
            "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
            "AZURE_STORAGE_ENDPOINT": base,
            "AZURE_ALLOW_HTTP": "true",
        },
    }
    for name, value in settings[scheme].items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=SCHEMES)
def storage(request: pytest.FixtureRequest, cloud: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Storage:
    settle(monkeypatch, request.param, f"http://127.0.0.1:{cloud.server_address[1]}")
    return open_storage(f"{request.param}://shop/images")


def test_an_address_names_the_bucket_and_a_folder_in_it(storage: Storage, cloud: ThreadingHTTPServer):
    assert storage.put("a/fox.png", b"fox").endswith("://shop/images/a/fox.png")
    assert list(cloud.RequestHandlerClass.objects) == ["/shop/images/a/fox.png"]
    assert (storage.get("a/fox.png"), storage.size("a/fox.png")) == (b"fox", 3)


def test_a_name_is_taken_once_and_what_is_removed_is_gone(storage: Storage):
    storage.check()
    storage.put("fox.png", b"fox")
    with pytest.raises(FileExistsError):
        storage.put("fox.png", b"owl")
    storage.put("fox.png", b"owl", overwrite=True)
    assert storage.get("fox.png") == b"owl"
    storage.remove("fox.png")
    storage.remove("fox.png")
    assert (storage.get("fox.png"), storage.size("fox.png")) == (None, None)


def test_azure_signs_a_link_that_ends(monkeypatch):
    settle(monkeypatch, "az", "https://ours.blob.core.windows.net")
    link = open_storage("az://shop/images").link("a/fox.png", 60)
    parts = urlsplit(link)
    assert (parts.netloc, parts.path) == ("ours.blob.core.windows.net", "/shop/images/a/fox.png")
    left = datetime.fromisoformat(parse_qs(parts.query)["se"][0]) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=60)
    assert SECRET not in link


@pytest.mark.parametrize(
    ("address", "environment", "reason"),
    [
        ("az://shop/images", {}, "Account must be specified"),
        ("az://shop", {"AZURE_STORAGE_ACCOUNT_NAME": "ours", "AZURE_STORAGE_ACCOUNT_KEY": "CANARY!"}, "decode|Invalid"),
        ("gs://shop/images", {"GOOGLE_SERVICE_ACCOUNT": "/nowhere.json"}, "/nowhere.json: No such file"),
        ("gs://shop/images", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "CANARY"}'}, "service account"),
        ("gs://", {}, "Unable to recognise URL"),
    ],
)
def test_without_credentials_the_error_names_the_address_and_what_is_missing(monkeypatch, address, environment, reason):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=reason) as caught:
        open_storage(address)
    assert f"{address} " in str(caught.value)
    assert "check its credentials and the network" in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_network_the_error_names_the_address_and_no_secret(monkeypatch, scheme):
    settle(monkeypatch, scheme, "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=f"Nothing can be stored at {scheme}://shop/images now") as caught:
        open_storage(f"{scheme}://shop/images").check()
    assert "check its credentials and the network" in str(caught.value)
    assert SECRET not in str(caught.value)
