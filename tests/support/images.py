"""Image files and a host that serves them, for the tests that send images."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from fluxwerk.testing.face_to_face import blank


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 150)).save(file, "JPEG")
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    return blank(width, height)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def giant() -> bytes:
    """A small file that claims 400 megapixels."""
    return blank(64, 64)[:16] + (20_000).to_bytes(4, "big") * 2 + blank(64, 64)[24:]


@contextmanager
def hosting(files: Mapping[str, bytes]) -> Iterator[str]:
    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
