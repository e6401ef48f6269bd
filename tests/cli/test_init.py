"""`fluxwerk init`: the key is asked for, tried, and kept where git does not see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback

KEY = "CANARY-a-key"
BACKEND = """
import pathlib
from keyring.backend import KeyringBackend

class FileKeyring(KeyringBackend):
    priority = 1
    file = pathlib.Path("keyring.txt")
    def get_password(self, service, name):
        return self.file.read_text() if self.file.exists() else None
    def set_password(self, service, name, password):
        self.file.write_text(password)
    def delete_password(self, service, name):
        self.file.unlink()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words):
    done = CliRunner().invoke(group, ["init", *words], input=f"{KEY}\n")
    assert KEY not in done.output + done.stderr, "a key is never shown"
    return done


def test_the_key_is_in_env_and_git_ignores_it(own_folder):
    assert init("--no-check").exit_code == 0
    assert (own_folder / ".env").read_text() == f"BFL_API_KEY={KEY}\n"
    assert (own_folder / ".gitignore").read_text() == ".env\n"
    assert (own_folder / ".env").stat().st_mode & 0o077 == 0


def test_what_was_in_both_files_stays(own_folder):
    (own_folder / ".env").write_text("OTHER=1\nexport BFL_API_KEY=old\nMORE=2\n")
    (own_folder / ".gitignore").write_text("build/")
    init("--no-check")
    assert (own_folder / ".env").read_text() == f"OTHER=1\nBFL_API_KEY={KEY}\nMORE=2\n"
    assert (own_folder / ".gitignore").read_text() == "build/\n.env\n"
    init("--no-check")
    assert (own_folder / ".gitignore").read_text() == "build/\n.env\n"


def test_the_key_is_tried_before_it_is_kept(fluxwerk_server, own_folder):
    done = init("--base-url", fluxwerk_server)
    assert "The key works; the balance is" in done.stderr
    (own_folder / ".env").unlink()
    with loopback(accounts=Accounts(["another-key"])) as base:
        assert init("--base-url", base).exit_code == 3
    assert not (own_folder / ".env").exists()


def test_a_key_that_cannot_be_one_is_refused(own_folder):
    done = CliRunner().invoke(group, ["init", "--no-check"], input="two words\n")
    assert done.exit_code != 0
    assert not (own_folder / ".env").exists()


def test_the_next_command_reads_the_key(fluxwerk_server, monkeypatch):
    monkeypatch.delenv("BFL_API_KEY")
    init("--no-check")
    assert CliRunner().invoke(group, ["credits", "--base-url", fluxwerk_server]).exit_code == 0


def test_the_keyring_keeps_the_key_for_every_folder(fluxwerk_server, own_folder):
    pytest.importorskip("keyring", reason="the extra keyring is not installed")
    (own_folder / "backend.py").write_text(BACKEND)
    path = f"{own_folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHON_KEYRING_BACKEND": "backend.FileKeyring"}
    del environment["BFL_API_KEY"]

    def run(*words, key=""):
        command = [sys.executable, "-m", "fluxwerk", *words]
        return subprocess.run(
            command, env=environment, input=key, capture_output=True, text=True, timeout=60, check=False
        )

    assert run("credits", "--base-url", fluxwerk_server).returncode == 3
    assert run("init", "--keyring", "--no-check", key=f"{KEY}\n").returncode == 0
    assert Path("keyring.txt").read_text() == KEY
    assert not Path(".env").exists()
    assert run("credits", "--base-url", fluxwerk_server).returncode == 0
