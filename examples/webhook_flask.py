"""Webhooks in Flask, or similarly in any WSGI framework: verify, answer, and act in a thread.

pip install fluxwerk flask
export BFL_API_KEY=…  BFL_WEBHOOK_SECRET=$(openssl rand -hex 32)  PUBLIC_URL=https://your.host/hooks
flask --app examples/webhook_flask run
curl -X POST "http://127.0.0.1:5000/images?prompt=A+red+fox"
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flask import Flask, request

from fluxwerk import Client, FluxwerkError, InvalidSignatureError, InvalidWebhookError, Task
from fluxwerk.webhook import read, verify

FOLDER = Path(os.environ.get("IMAGES", "images"))
SECRET = os.environ["BFL_WEBHOOK_SECRET"]
client = Client()
workers = ThreadPoolExecutor(8)
# A real service keeps these in its database, so that a restart loses none and several processes share them.
tasks: dict[str, Task] = {}

app = Flask(__name__)
# Flask answers a larger body with 413.
app.config["MAX_CONTENT_LENGTH"] = 256 * 1024


@app.post("/images")
def order() -> dict[str, str]:
    """Submit, and answer before the image is ready."""
    prompt, url = request.args["prompt"], os.environ["PUBLIC_URL"]
    task = client.submit(prompt, model="flux-2-pro", webhook_url=url, webhook_secret=SECRET)
    tasks[task.id] = task
    return {"task": task.id}


@app.post("/hooks")
def receive() -> tuple[str, int]:
    """Verify the raw body, give the task to a worker, and answer."""
    try:
        verify(request.get_data(), request.headers, SECRET)
        hint = read(request.get_data())
    except InvalidSignatureError as error:
        return str(error), 401
    except InvalidWebhookError as error:
        return str(error), 400
    task = tasks.pop(hint.task.id, None)
    if task is None:
        # Either the task was collected before, or the webhook came before the line that stores the task; then the
        # sender repeats it after 1, 5 and 30 seconds.
        return "Unknown task.", 404
    workers.submit(collect, task)
    return "", 204


def collect(task: Task) -> None:
    """Fetch the image from the service, because a webhook is only a hint."""
    try:
        image = client.download(task)
        image.save(FOLDER / f"{task.id}.{image.suffix}")
    except FluxwerkError as error:
        print(f"task {task.id} ended without an image: {error}")
