"""The page of the example notebook: its text and code, written by `python tests/support/notebook_page.py`."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PAGE = ROOT / "docs" / "how-to" / "notebooks.md"
ENDING = """
The notebook is `examples/notebook.ipynb`; the tests run it in a kernel of its own.
"""


def page() -> str:
    """Return the page: markdown cells as they are, code cells as blocks."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n" + ENDING


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
