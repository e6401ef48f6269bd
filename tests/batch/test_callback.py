"""A submit whose answer was lost is matched to its task by the webhook, over real HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fluxwerk.batch import plan
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback
from support.accounts import accepted

SECRET = "a-secret-of-this-batch"


def fluxwerk(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluxwerk", *words]
    given = {**os.environ, "BFL_API_KEY": "a-key", "BFL_WEBHOOK_SECRET": SECRET, **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_a_webhook_settles_a_doubt_without_a_second_submit(tmp_path: Path):
    """A webhook settles the doubt and the image is collected without a second submit."""
    file, books = tmp_path / "work.ledger", Accounts()
    with Ledger.open(file) as ledger:
        plan(ledger, [{"prompt": "a fox", "width": 64, "height": 64}])
    listen = [sys.executable, "-m", "fluxwerk", "webhook", "listen", "--port", "0", "--count", "1"]
    environment = {**os.environ, "BFL_WEBHOOK_SECRET": SECRET}
    lost = FaultRule(on="submit", do="reset", accepted=True, first=1)
    late = FaultRule(on="webhook", do="delay", seconds=1.5)
    with (
        loopback(accounts=books, trouble=[lost, late]) as base,
        subprocess.Popen(
            [*listen, "--ledger", str(file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as listening,
    ):
        url = re.search(r"http://\S+?(?=;)", listening.stderr.readline())[0]
        words = ("batch", "run", str(file), "--base-url", base, "--output", str(tmp_path / "images"))
        fluxwerk(*words, "--webhook", url)
        heard = listening.stdout.read()
        again = fluxwerk(*words, "--webhook", url)

    assert "verdict: verified" in heard, heard
    assert "settled: job 1" in heard
    assert again.returncode == 0, again.stderr
    with Ledger.open(file) as ledger:
        assert ledger.job(1).stage is Stage.SAVED
    assert len(accepted(books)) == 1
    assert len(list((tmp_path / "images").glob("*.jpeg"))) == 1
