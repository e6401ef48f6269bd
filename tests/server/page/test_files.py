"""The page's files: libraries as they were fetched, and little enough to load at once."""

from __future__ import annotations

import hashlib
import json

from fluxwerk.server.page import files
from support.vendor import FOLDER, LIBRARIES

MOST_BYTES = 120_000


def test_every_library_is_the_one_that_was_fetched():
    record = json.loads((FOLDER / "vendor.json").read_text())
    assert {entry["file"] for entry in record} == {file.name for file in FOLDER.glob("*.js")}
    for entry in record:
        assert hashlib.sha256((FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]


def test_every_library_is_pinned_and_has_its_licence():
    licences = (FOLDER / "LICENSES.txt").read_text()
    for package, integrity, *_ in LIBRARIES:
        assert integrity.startswith("sha512-")
        assert package in licences


def test_all_scripts_and_styles_together_are_small():
    loaded = [file.compressed for path, file in files.load() if path.endswith((".js", ".css"))]
    assert sum(map(len, loaded)) < MOST_BYTES


def test_no_file_names_another_server():
    for path, file in files.load():
        if path.endswith((".js", ".css", ".html")) and "/vendor/" not in path:
            text = file.body.decode()
            assert "https://" not in text.replace("https://…", ""), path
            assert ' style="' not in text, path
