"""The page's libraries: fetched from npm at pinned versions, checked by hash, and written beside the page's files.

`python tests/support/vendor.py` writes `static/vendor/` again; the test of it needs no network, since it only compares
the files with the hashes in `vendor.json`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "src" / "fluxwerk" / "server" / "page" / "static" / "vendor"
# The package with its npm integrity, the file in it, the name here, and its licence with the file that has its text.
LIBRARIES = (
    (
        "preact@11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        {"package/dist/preact.mjs": "preact.js", "package/hooks/dist/hooks.mjs": "hooks.js"},
        "MIT",
        "package/LICENSE",
    ),
    (
        "htm@3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"package/dist/htm.module.js": "htm.js"},
        "Apache-2.0",
        "package/LICENSE",
    ),
)


def fetch(package: str, integrity: str) -> tarfile.TarFile:
    """Fetch a package by npm, and refuse it if its bytes are not the pinned ones."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", package, "--silent"], cwd=folder, check=True, stdout=subprocess.PIPE)
        data = next(Path(folder).glob("*.tgz")).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != integrity:
        sys.exit(f"{package} has the integrity {found}, and {integrity} is pinned.")
    return tarfile.open(fileobj=io.BytesIO(data))


def served(source: str) -> str:
    """Let a module find its neighbours by path, since a browser knows no packages; its map is not shipped."""
    lines = [line for line in source.splitlines() if not line.startswith("//# sourceMappingURL=")]
    return "\n".join(lines).replace('from"preact"', 'from"./preact.js"') + "\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    record, licences = [], []
    for package, integrity, modules, licence, text in LIBRARIES:
        archive = fetch(package, integrity)
        for inside, name in modules.items():
            source = served(archive.extractfile(inside).read().decode())
            (FOLDER / name).write_text(source, encoding="utf-8")
            digest = hashlib.sha256(source.encode()).hexdigest()
            record.append({"file": name, "package": package, "integrity": integrity, "path": inside, "sha256": digest})
        licences.append(f"{package} ({licence})\n\n{archive.extractfile(text).read().decode().strip()}\n")
    (FOLDER / "vendor.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (FOLDER / "LICENSES.txt").write_text(("\n" + "-" * 80 + "\n\n").join(licences), encoding="utf-8")


if __name__ == "__main__":
    main()
