"""`fluxwerk studio`: a server that keeps its images, and the browser in front of it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import httpx2
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.server.loopback import listen
from support.asking import PRO
from support.process import process


def free_port() -> int:
    with listen("127.0.0.1", 0) as free:
        return free.getsockname()[1]


@contextmanager
def studio(home, *options: object, port: int):
    """The command in a process of its own, whose browser is a program that writes down what it shall open."""
    shown = home / "shown"
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shown}.part && mv {shown}.part {shown}\n')
    browser.chmod(0o700)
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "BROWSER": str(browser)}
    command = [sys.executable, "-m", "fluxwerk", "studio", "--port", str(port), *map(str, options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            yield running, shown
        finally:
            running.kill()


def wait_for(condition) -> None:
    while not condition():
        pass


def test_it_starts_a_server_that_keeps_its_images_and_opens_the_page(tmp_path):
    port = free_port()
    with studio(tmp_path, port=port) as (running, shown):
        wait_for(lambda: shown.exists() or running.poll() is not None)
        assert shown.read_text().strip() == f"http://127.0.0.1:{port}"
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/session").json()["keep"] == 365 * 86_400
    assert (tmp_path / "data" / "fluxwerk" / "studio" / "state.db").exists()


def test_options_of_serve_are_handed_on(tmp_path):
    port = free_port()
    state = tmp_path / "elsewhere"
    with studio(tmp_path, "--state", state, "--keep", 60, "--no-open", port=port) as (running, _):
        wait_for(lambda: running.stderr.readline().startswith("fluxwerk serves"))
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/session").json()["keep"] == 60
    assert state.exists()
    assert not (tmp_path / "data").exists()


def test_a_server_that_runs_is_used():
    with process() as (base, _):
        result = CliRunner().invoke(group, ["studio", "--port", base.rpartition(":")[2], "--no-open"])
        assert (result.exit_code, "runs at" in result.stderr) == (0, True)
        assert httpx2.post(base + PRO, json={"prompt": "x"}, headers={"x-key": "k"}).status_code == 200


def test_options_for_a_server_that_runs_already_are_refused():
    with process() as (base, _):
        args = ["studio", "--port", base.rpartition(":")[2], "--no-open", "--keep", "60"]
        result = CliRunner().invoke(group, args)
        assert "would have no effect" in result.stderr
        assert result.exit_code != 0
