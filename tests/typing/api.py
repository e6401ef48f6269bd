"""What users write, for type checkers alone: never run."""

from __future__ import annotations

import io
from collections.abc import Generator
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

import httpx2
from PIL import Image as Pil

import fluxwerk
from fluxwerk import (
    AsyncClient,
    Client,
    Event,
    Image,
    InDoubtError,
    InvalidUsageError,
    Model,
    ModerationError,
    Outcome,
    RateLimitError,
    Request,
    Status,
    Task,
    TaskTimeoutError,
)
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import FaceToFace, PretendClock, loopback
from fluxwerk.webhook import Receiver, Wakeup, read, sign, verify


def blocking() -> None:
    client = Client()
    with Client("key", region="eu", timeout=60) as entered:
        assert_type(entered, Client)
    assert_type(client.generate("a fox", model="flux-2-pro", width=1024, height=1024, seed=1), Image)
    assert_type(client.generate(model="fill", image=Path("photo.png"), mask=b"...", prompt_upsampling=None), Image)
    assert_type(client.generate("x", images=["https://host/a.jpg", Path("b.png"), b"...", io.BytesIO()]), Image)
    assert_type(client.generate("x", model=Model("flux-9", "/v1/flux-9"), extra={"dream": True}, timeout=5), Image)
    task = client.submit("a fox")
    assert_type(task, Task)
    assert_type(task.cost, Decimal | None)
    status = client.wait(task, timeout=30.0)
    assert_type(status, Status)
    assert_type(status.outcome, Outcome)
    assert_type(client.download(status), Image)
    assert_type(client.download(task, timeout=3), Image)
    assert_type(client.credits(), Decimal)
    assert_type(client.estimate("flux-2-pro", 1920, 1080, inputs=[(1024, 1024)]), Decimal)
    assert_type(client.request("x", model="flux-2-flex", steps=20, guidance=4.5), Request)
    client.close()


async def concurrent() -> None:
    async with AsyncClient("key", base_url="http://127.0.0.1:8000", on_event=listen) as client:
        assert_type(client, AsyncClient)
        assert_type(await client.generate("a fox", aspect_ratio="16:9", model="flux-kontext-pro"), Image)
        task = await client.submit("a fox", images=[Pil.new("RGB", (64, 64))])
        assert_type(task, Task)
        assert_type(await client.wait(task), Status)
        assert_type(await client.download(task), Image)
        assert_type(await client.credits(), Decimal)
    await client.close()


def listen(event: Event) -> None:
    assert_type(event.task, Task | None)
    assert_type(event.seconds, float)


def keep(image: Image) -> None:
    assert_type(image.save("out.png"), Path)
    assert_type(image.to_pil(), Pil.Image)
    assert_type(image.cost, Decimal | None)
    assert_type(image.seed, int | None)
    assert_type((image.width, image.height), tuple[int, int])
    assert_type(image.data, bytes)
    assert_type(image.model, str)


def recover(client: Client) -> Image | None:
    try:
        return client.generate("x")
    except InvalidUsageError as mistake:
        for fault in mistake.faults:
            assert_type(fault.field, str)
    except ModerationError as stopped:
        assert_type(stopped.reasons, tuple[str, ...])
    except RateLimitError as busy:
        assert_type(busy.retry_after, float | None)
    except (InDoubtError, TaskTimeoutError) as late:
        assert_type(late.task, Task | None)
    except fluxwerk.FluxwerkError:
        raise
    return None


def look_up() -> None:
    assert_type(fluxwerk.list_models(), dict[str, Model])
    assert_type(fluxwerk.get_model("klein"), Model)
    assert_type(fluxwerk.estimate("flux-2-pro"), Decimal)


def own_connections() -> None:
    Client("key", http_client=httpx2.Client())
    AsyncClient("key", http_client=httpx2.AsyncClient())
    # Each client takes connections of its own kind, and no option that no model has.
    Client("key", http_client=httpx2.AsyncClient())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Client().generate("x", negative_prompt="blur")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    Client().generate("x", width="wide")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def for_tests() -> Generator[Any]:
    face = FaceToFace(seconds=5, accounts=Accounts(["key"]))
    assert_type(face.clock, PretendClock)
    assert_type(face.generate("x"), Image)
    with loopback() as base:
        assert_type(base, str)
        yield base


async def hooked(client: AsyncClient, headers: dict[str, str]) -> None:
    async def on_status(status: Status) -> None:
        assert_type(status.outcome, Outcome)

    receiver = Receiver(
        "secret", on_status, client=client, url="https://your.host/hooks", find={"id": Task("id", "")}.get
    )
    Receiver("secret", print, client=Client(), wakeup=Wakeup())
    receiver.expect(await client.submit("a fox", **receiver.options))
    await receiver.wakeup.wait_async("id", 30)
    verify(b"{}", headers, "secret", accept_secret_header=True)
    verify(b"{}", httpx2.Headers(headers), "secret")
    assert_type(read(b"{}"), Status)
    assert_type(sign(b"{}", "secret"), str)


def options_by_model(client: Client, name: str) -> None:
    assert_type(client.generate("x", model="flux-2-flex", steps=20, output_format="webp"), Image)
    assert_type(client.submit("x", model="flux-kontext-pro", aspect_ratio="16:9"), Task)
    assert_type(client.generate("x", model=name, width=512), Image)
    assert_type(client.generate(Request("flux-2-pro", {})), Image)
