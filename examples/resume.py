"""Submit now, and collect later in another process or after a crash: a task is a plain value.

python resume.py submit "A red fox" > task.json
python resume.py collect task.json fox.jpeg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fluxwerk import Client, Task


def submit(prompt: str) -> str:
    """Submit a request and return what is needed to collect the image."""
    with Client() as client:
        task = client.submit(prompt, model="flux-2-pro", width=512, height=512)
    return json.dumps({"id": task.id, "polling_url": task.polling_url, "model": task.model})


def collect(text: str, file: str) -> Path:
    """Wait for the task and save its image; nothing is submitted, so nothing is paid for again."""
    with Client() as client:
        return client.download(Task(**json.loads(text))).save(file)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["submit", prompt]:
            print(submit(prompt))
        case ["collect", task, file]:
            print(collect(Path(task).read_text(encoding="utf-8"), file))
        case _:
            sys.exit(__doc__)
