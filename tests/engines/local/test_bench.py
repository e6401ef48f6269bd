"""The bench for a GPU runs on a CPU with tiny weights, so that it works the first time on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

BENCH = Path(__file__).parents[3] / "bench"


def run(program: str, *given: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(BENCH.parent / "src")}
    command = [sys.executable, str(BENCH / program), *given]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_the_gpu_bench_prints_every_figure() -> None:
    said = run("gpu.py", "--tiny", "--device", "cpu", "--sizes", "128:1,64:1,64:2", "--repeat", "1")
    rows = [line.split() for line in said.splitlines() if re.match(r"^ +\d+ +\d+ ", line)]
    assert [row[:2] for row in rows] == [["128", "1"], ["64", "1"], ["64", "2"]]
    assert all(float(figure) > 0 for row in rows for figure in row[2:8])
    assert re.search(r"stock: first image after \d+\.\d\d s", said)
    assert re.search(r"fluxwerk: first image after \d+\.\d\d s", said)


def test_the_gpu_bench_ends_in_its_minutes() -> None:
    said = run("gpu.py", "--tiny", "--device", "cpu", "--sizes", "64:1,64:2", "--minutes", "0")
    assert said.count("nan") >= 8


def test_the_table_of_memory_has_a_row_for_each_form() -> None:
    rows = [line for line in run("memory.py", "--table").splitlines() if line.startswith("|")]
    assert len(rows) == 10
    assert "| *billions in the transformer* | 3.88 | 9.08 | 32.22 | 11.90 | 5.55 |" in rows
