"""Our commands of Dockerfile and compose.yaml, run as they are written, with the places of this machine for theirs."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import httpx2
import pytest
import yaml

from fluxwerk import Client
from fluxwerk.cli.group import group
from support.shelf import open_shelf

pytest.importorskip("obstore", reason="the extra storage is not installed")

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SECRETS = {"POSTGRES_PASSWORD": "p", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
SCRIPTS = sysconfig.get_path("scripts")


def instruction(name: str) -> str:
    """Return what follows an instruction of the Dockerfile, the last one of its kind."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def placed(word: str, places: Mapping[str, str]) -> str:
    for theirs, ours in places.items():
        word = word.replace(theirs, ours)
    return word


@contextmanager
def running(words: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Run a command, and end it as an orchestrator does; yields its first line."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**clean(), **environment}) as process:
        try:
            yield process.stderr.readline()
        finally:
            process.terminate()
            process.wait(timeout=20)


def clean() -> dict[str, str]:
    """Return the environment of a container: nothing of ours but how to find the programs."""
    path = os.pathsep.join([SCRIPTS, os.environ.get("PATH", "")])
    return {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": os.devnull, "no_proxy": "*"}


def service(name: str, places: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of a service with its entrypoint, and its environment, interpolated as compose does."""
    one = COMPOSE["services"][name]
    interpolated = {
        key: placed(re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SECRETS[found[1]], value), places)
        for key, value in one["environment"].items()
    }
    return [*json.loads(instruction("ENTRYPOINT")), *(placed(word, places) for word in one["command"])], interpolated


def drawn(base: str) -> tuple[int, int]:
    """Have an image made, and return its size."""
    with Client("key", base_url=base) as client:
        image = client.generate("a fox", width=64, height=64)
        return image.width, image.height


def test_the_image_is_small_and_not_root():
    assert instruction("FROM").endswith("-slim")
    assert int(instruction("USER")) > 0
    for copied in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"


def test_the_image_serves_and_is_healthy(tmp_path):
    port = str(free_port())
    places = {"/data": str(tmp_path), "8000": port}
    command = [placed(word, places) for text in ("ENTRYPOINT", "CMD") for word in json.loads(instruction(text))]
    check = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    with running(command, {}) as line:
        assert f":{port}" in line
        subprocess.run([placed(word, places) for word in check], check=True, env=clean(), timeout=20)
        assert drawn(f"http://127.0.0.1:{port}") == (64, 64)
    assert (tmp_path / "state.db").exists()
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(
            [placed(word, places) for word in check], check=True, env=clean(), timeout=20, stderr=subprocess.DEVNULL
        )


@contextmanager
def fleet_places(database: str) -> Iterator[dict[str, str]]:
    """Yield the places of this machine for those that compose.yaml names, with an object store of our own."""
    with open_shelf() as store:
        yield {
            "fluxwerk:p@database/fluxwerk": database.removeprefix("postgresql://"),
            "http://store:8333": store,
            "8000": str(free_port()),
        }


def test_the_services_of_the_fleet_work_together(database):
    with (
        fleet_places(database) as places,
        running(*service("server", places)) as line,
        running(*service("worker", places)) as served,
        httpx2.Client(base_url=f"http://127.0.0.1:{places['8000']}") as http,
    ):
        assert f":{places['8000']}" in line
        assert "flux-2-pro" in served
        while http.get("/readyz").status_code != 200:
            pass
        assert drawn(str(http.base_url)) == (64, 64)


def test_the_key_of_the_guide_opens_the_fleet(database):
    """`docker compose run --rm server keys add` puts words of its own in the place of the service's command."""
    guide = (ROOT / "docs" / "how-to" / "fleet.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"^docker compose run --rm server (.+)$", guide, re.MULTILINE)
    assert written in (ROOT / "compose.yaml").read_text(encoding="utf-8")
    with fleet_places(database) as places:
        command, environment = service("server", places)
        words = [*json.loads(instruction("ENTRYPOINT")), *shlex.split(written)]
        added = subprocess.run(
            words, env={**clean(), **environment}, capture_output=True, text=True, timeout=30, check=True
        )
        with running(command, environment):
            key = {"x-key": added.stdout.strip()}
            told = httpx2.get(f"http://127.0.0.1:{places['8000']}/v1/credits", headers=key).json()
    assert told["credits"] == 2000


def test_the_database_is_healthy_while_it_answers(server):
    program, *words = COMPOSE["services"]["database"]["healthcheck"]["test"][1:]
    for port, code in (server.port, 0), (free_port(), 2):
        place = {"PATH": str(server.programs), "PGHOST": "127.0.0.1", "PGPORT": str(port)}
        done = subprocess.run([server.programs / program, *words], env=place, capture_output=True, check=False)
        assert done.returncode == code


def test_every_secret_has_to_be_given():
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    for name in SECRETS:
        assert re.findall(rf"\$\{{{name}(.)", text), name
        assert set(re.findall(rf"\$\{{{name}(.)", text)) == {":"}


def sketches() -> list[dict]:
    text = (ROOT / "docs" / "how-to" / "fleet.md").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(re.search(r"```yaml\n(.+?)```", text, re.DOTALL)[1]))


def test_the_sketch_for_kubernetes_calls_commands_that_exist():
    kinds = [one["kind"] for one in sketches()]
    assert kinds == ["Deployment", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    for one in sketches()[:2]:
        (container,) = one["spec"]["template"]["spec"]["containers"]
        name, *words = container["args"]
        command = group.get_command(click.Context(group), name)
        options = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_a_worker_tells_its_counts(database, tmp_path):
    port = free_port()
    place = ["--database", database, "--storage", str(tmp_path), "--metrics-port", str(port)]
    with running(["fluxwerk", "worker", "--engine", "offline", *place], {}) as line:
        assert "flux-2-pro" in line
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert "# TYPE fluxwerk_render_seconds histogram" in text
    assert "fluxwerk_worker_heartbeat_age_seconds{" in text
