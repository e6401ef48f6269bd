"""Completion: a real shell asks, and gets commands, options and models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import group


def asked(words, number):
    """What bash gets for the word at this place of a line."""
    environment = {**os.environ, "_FLUXWERK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    command = [sys.executable, "-m", "fluxwerk"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_commands_options_and_models_are_completed():
    assert "doctor" in asked("fluxwerk doc", 1)
    assert "--seed" in asked("fluxwerk generate x --se", 3)
    assert {"flux-2-klein-4b", "flux-2-klein-9b"} <= asked("fluxwerk generate x -m flux-2-kl", 4)
    assert "flux-2-max" in asked("fluxwerk price flux-2-m", 2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_variable_that_answers(shell):
    done = CliRunner().invoke(group, ["completion", shell])
    assert done.exit_code == 0
    assert f"_FLUXWERK_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_takes_the_script(tmp_path):
    (tmp_path / "fluxwerk").write_text(f'#!/bin/sh\nexec {sys.executable} -m fluxwerk "$@"\n')
    (tmp_path / "fluxwerk").chmod(0o755)
    script = (
        'eval "$(fluxwerk completion bash)"; COMP_WORDS=(fluxwerk hist); COMP_CWORD=1; '
        '_fluxwerk_completion fluxwerk; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "history", done.stderr
