"""The example notebook runs in a kernel, and its page is what it holds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import notebook_page

RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=60).execute()
print(nbformat.writes(notebook))
"""


def test_the_page_is_what_the_notebook_holds():
    written = notebook_page.PAGE.read_text(encoding="utf-8")
    assert written == notebook_page.page(), "python tests/support/notebook_page.py writes it"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(notebook_page.NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []


# A server of its own, so that no late request of another test is counted.
@pytest.mark.parametrize("fluxwerk_server", [{}], indirect=True)
def test_the_notebook_runs_and_shows_its_images(fluxwerk_server, fluxwerk_requests, tmp_path):
    command = [sys.executable, "-c", RUN, str(notebook_page.NOTEBOOK)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    outputs = [cell["outputs"] for cell in json.loads(done.stdout)["cells"] if cell["cell_type"] == "code"]
    assert "image/jpeg" in outputs[1][0]["data"]
    shown = "".join(outputs[2][0]["data"]["text/html"])
    assert shown.count("<img") == 3
    assert "3 of 3 images" in shown
    assert "".join(outputs[3][0]["data"]["text/html"]).count("<img") == 4
    assert len([one for one in fluxwerk_requests if one.method == "POST"]) == 6
    assert len(list(tmp_path.glob("*.jpeg"))) == 2
