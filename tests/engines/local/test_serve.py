"""From a request on the wire to pixels from weights: the real server, its real child, curl and our own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

from fluxwerk import Client
from fluxwerk.engines import Order
from fluxwerk.engines.local import LocalEngine
from fluxwerk.engines.local.process import EngineNotReadyError
from fluxwerk.engines.local.row import Row, Weights
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidRequestError
from fluxwerk.types import Task
from support.painting import paint
from support.photos import apart, ellipse, opened, photo, png

KEY = "a-key-for-tests"
PATIENCE = 120
CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")


@contextmanager
def serving(*options: str) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Run `fluxwerk serve` as a person does and yield its address."""
    command = [sys.executable, "-m", "fluxwerk", "serve", "--engine", "diffusers", "--device", "cpu", "--port", "0"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"at (http://\S+) ", line):
                yield found[1], process
                break
        else:
            pytest.fail("".join(said))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def table(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """One klein behind two names, and a slow one to have time with."""
    klein = checkpoint("klein")
    file = tmp_path_factory.mktemp("table") / "weights.toml"
    file.write_text(f"""
        [weights.flux-2-klein-4b]
        path = "{klein}"
        [weights."flux-pro-1.0-fill"]
        path = "{klein}"
        [weights.flux-2-klein-9b]
        path = "{klein}"
        steps = 3000
    """)
    return str(file)


@pytest.fixture(scope="module")
def server(table: str) -> Generator[str]:
    with serving("--weights", table, "--previews") as (base, _):
        yield base


@pytest.fixture
def client(server: str) -> Generator[Client]:
    with Client(KEY, base_url=server) as client:
        yield client


def curl(*arguments: str, fail: bool = True) -> bytes:
    strict = ["--fail-with-body"] if fail else []
    return subprocess.run([CURL, "-sS", *strict, *arguments], capture_output=True, check=True).stdout


@needs_curl
def test_curl_gets_a_png_from_tiny_klein(server: str, family) -> None:
    curl("--retry", "100", "--retry-delay", "1", f"{server}/healthz")
    body = json.dumps({"prompt": "a red fox", "width": 130, "height": 75, "seed": 7, "output_format": "png"})
    task = json.loads(curl("-H", f"x-key: {KEY}", "-d", body, f"{server}/v1/flux-2-klein-4b"))
    poll = {"status": "Pending"}
    while poll["status"] == "Pending":
        poll = json.loads(curl(task["polling_url"]))
    image = opened(curl(poll["result"]["sample"]))
    assert (poll["status"], poll["result"]["engine"]) == ("Ready", "diffusers")
    # 130 x 75 is cut down to multiples of 16, as FLUX.2 does.
    assert image.size == (128, 64)
    assert apart(image, paint(family("klein"), Order("flux-2-klein-4b", "a red fox", 7, 128, 64))) <= 1


def test_our_client_gets_the_same_picture(client: Client, family) -> None:
    image = client.generate("a red fox", model="flux-2-klein-4b", width=128, height=64, seed=7, output_format="png")
    assert apart(opened(image.data), paint(family("klein"), Order("flux-2-klein-4b", "a red fox", 7, 128, 64))) <= 1


@pytest.mark.parametrize("references", [1, 4])
def test_references_travel_to_the_weights(client: Client, family, references: int) -> None:
    files = [png(photo(96, 64, seed)) for seed in range(references)]
    given = {"model": "flux-2-klein-4b", "width": 64, "height": 64, "seed": 7, "output_format": "png"}
    image = client.generate("x", images=files, **given)
    order = Order("flux-2-klein-4b", "x", 7, 64, 64, references=tuple(files))
    assert apart(opened(image.data), paint(family("klein"), order)) <= 1


def test_a_mask_travels_to_the_weights_and_the_rest_comes_back_untouched(client: Client) -> None:
    source, mask = photo(256, 256, 5), ellipse(256, 256)
    given = {"image": png(source), "mask": png(mask), "seed": 7, "output_format": "png"}
    rendered = opened(client.generate("x", model="flux-pro-1.0-fill", **given).data)
    assert apart(rendered.crop((0, 0, 256, 60)), source.crop((0, 0, 256, 60))) == 0
    assert apart(rendered, source) > 8


@pytest.mark.parametrize("suffix", ["jpeg", "webp", "png"])
def test_the_file_has_the_format_that_was_asked_for(client: Client, suffix: str) -> None:
    image = client.generate("x", model="flux-2-klein-4b", width=64, height=64, output_format=suffix)
    assert image.content_type == f"image/{suffix}"


def test_what_the_weights_cannot_honour_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"no weights for it; it serves flux-2-klein-4b"):
        client.submit("x", model="flux-2-pro")


@needs_curl
def test_a_task_tells_its_progress_shows_itself_and_can_be_cancelled(server: str) -> None:
    body = json.dumps({"prompt": "a slow fox", "width": 256, "height": 256})
    task = json.loads(curl("-H", f"x-key: {KEY}", "-d", body, f"{server}/v1/flux-2-klein-9b"))
    poll = {"progress": None}
    while not poll["progress"]:
        poll = json.loads(curl(task["polling_url"]))
    assert 0 < poll["progress"] < 1
    assert poll["preview"]["image"].startswith("data:image/jpeg;base64,")
    ended = json.loads(curl("-X", "DELETE", "-H", f"x-key: {KEY}", f"{server}/v1/tasks/{task['id']}"))
    assert ended["status"] == "Error"
    health = {"processes": [{"orders": 1}]}
    while health["processes"][0]["orders"]:
        health = json.loads(curl(f"{server}/healthz"))
    assert health["status"] == "ready"


@needs_curl
def test_sigterm_refuses_new_tasks_and_lets_those_that_run_be_collected(table: str) -> None:
    with serving("--weights", table) as (base, process):
        slow = json.dumps({"prompt": "slow", "width": 64, "height": 64, "seed": 1})
        quick = json.dumps({"prompt": "quick", "width": 64, "height": 64, "seed": 1})
        stuck = json.loads(curl("-H", f"x-key: {KEY}", "-d", slow, f"{base}/v1/flux-2-klein-9b"))
        task = json.loads(curl("-H", f"x-key: {KEY}", "-d", quick, f"{base}/v1/flux-2-klein-4b"))
        process.send_signal(signal.SIGTERM)
        while json.loads(curl(f"{base}/healthz", fail=False))["status"] != "closing":
            pass
        refused = curl("-H", f"x-key: {KEY}", "-d", quick, f"{base}/v1/flux-2-klein-4b", fail=False)
        assert json.loads(refused)["error"] == "closing"
        with Client(KEY, base_url=base) as client:
            status = client.wait(Task(task["id"], task["polling_url"]))
            assert opened(client.download(status).data).size == (64, 64)
        curl("-X", "DELETE", "-H", f"x-key: {KEY}", f"{base}/v1/tasks/{stuck['id']}")
        while process.poll() is None and process.stderr.readline():
            pass
        assert process.wait(PATIENCE) == 0


def test_the_engine_killed_at_work_is_started_again_and_paints_the_same(checkpoint, family) -> None:
    row: Row = read(str(checkpoint("klein"))).rows["flux-2-klein-4b"]
    order = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)
    engine = LocalEngine(Weights({row.model: replace(row, steps=60)}), ["cpu"])
    killed: list[int] = []

    def kill(_: object) -> None:
        if not killed:
            killed.append(engine.processes[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    async def scene() -> bytes:
        async with asyncio.timeout(PATIENCE), engine.open():
            return await engine.paint(order, kill)

    image = opened(asyncio.run(scene()))
    assert engine.processes[0].restarts == 1
    assert apart(image, paint(family("klein", 60), order)) <= 1


def test_a_device_that_is_not_there_fails_orders_in_words(checkpoint) -> None:
    row: Row = read(str(checkpoint("klein"))).rows["flux-2-klein-4b"]
    engine = LocalEngine(Weights({row.model: row}), ["nonsense"])

    async def scene() -> None:
        async with asyncio.timeout(PATIENCE), engine.open():
            with pytest.raises(EngineNotReadyError, match="klein cannot be used on nonsense: RuntimeError"):
                await engine.paint(Order(row.model, "x", 7, 64, 64), lambda _: None)
            assert (engine.health().word, engine.health().serving) == ("degraded", False)

    asyncio.run(scene())
    assert engine.processes[0].restarts == 0


def test_the_servers_own_process_never_loads_torch() -> None:
    program = """
import sys, fluxwerk, fluxwerk.cli.serve, fluxwerk.server.app, fluxwerk.engines.local
from fluxwerk.engines.local.engine import check_packages
check_packages()
sys.exit(bool({"torch", "diffusers", "transformers", "numpy"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "diffusers"], "--weights: is required with --engine diffusers"),
        (["--weights", "somewhere"], "--weights: needs --engine diffusers"),
        (["--engine", "diffusers", "--weights", "/nowhere"], "contains no weights"),
    ],
)
def test_the_command_line_says_what_is_missing(options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_licences_are_printed_at_the_start(table: str) -> None:
    command = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0", "--engine", "diffusers", "--device", "cpu"]
    with subprocess.Popen([*command, "--weights", table], stderr=subprocess.PIPE, text=True) as process:
        assert "flux-2-klein-4b: klein (Flux2KleinPipeline), licence Apache-2.0" in process.stderr.readline()
        process.kill()


def test_weights_are_fitted_to_the_memory_that_is_named(checkpoint) -> None:
    """The form is printed at the start, and a larger order than fits is refused before it is rendered."""
    command = [sys.executable, "-m", "fluxwerk", "serve", "--port", "0", "--engine", "diffusers", "--device", "cpu"]
    little = subprocess.run(
        [*command, "--weights", str(checkpoint("klein")), "--memory", "3G"], capture_output=True, text=True, check=False
    )
    assert little.returncode == 2
    assert "--memory = '3.0 GB': is too little for klein: even block by block" in little.stderr
    with serving("--weights", str(checkpoint("klein")), "--memory", "4.3G") as (base, process):
        assert process.poll() is None
        with Client(KEY, base_url=base) as client, pytest.raises(InvalidRequestError) as refused:
            client.submit("x", model="flux-2-klein-4b", width=2048, height=2048)
    assert "of memory, and the device has 4.3 GB" in str(refused.value)
