"""Webhooks in FastAPI: submit, return at once, and save the image when its webhook arrives.

pip install "fluxwerk[server]"
export BFL_API_KEY=…  BFL_WEBHOOK_SECRET=$(openssl rand -hex 32)  HOOK_TOKEN=$(openssl rand -hex 16)
export PUBLIC_URL=https://your.host/hooks
uvicorn examples.webhook_fastapi:app
curl -X POST "http://127.0.0.1:8000/images?prompt=A+red+fox"
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from fluxwerk import AsyncClient, Outcome, Status
from fluxwerk.webhook import Receiver

FOLDER = Path(os.environ.get("IMAGES", "images"))
client = AsyncClient()


async def on_status(status: Status) -> None:
    """Act on the final status, which the receiver has polled from the service."""
    if status.outcome is Outcome.READY:
        image = await client.download(status)
        image.save(FOLDER / f"{status.task.id}.{image.suffix}")
    else:
        print(f"task {status.task.id} ended as {status.word}: {status.details}")


receiver = Receiver(
    os.environ["BFL_WEBHOOK_SECRET"],
    on_status,
    client=client,
    url=os.environ["PUBLIC_URL"],
    # The last part of the address, which only the service knows.
    token=os.environ["HOOK_TOKEN"],
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Finish the accepted webhooks before the connections close."""
    yield
    await receiver.settle()
    await client.close()


app = FastAPI(lifespan=lifespan)
app.mount("/hooks", receiver)


@app.post("/images")
async def order(prompt: str) -> dict[str, str]:
    """Submit, and answer before the image is ready."""
    task = await client.submit(prompt, model="flux-2-pro", **receiver.options)
    # A real service writes the task to its database here, and gives the receiver `find=` instead.
    receiver.expect(task)
    return {"task": task.id}
