from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fluxwerk.cli.group import group
from fluxwerk.errors import ModerationError, TaskFailedError
from fluxwerk.ledger.job import Stage
from fluxwerk.ledger.ledger import Ledger
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.loopback import loopback
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing.face_to_face import Blank
from support import judge

KEY = "a-key-for-the-command-line"
MANIFEST = "prompt,model,size,seed,tag\na fox,flux-2-pro,64x64,1,cats\na wolf,klein-4b,64x64,2,dogs\na bear,,64x64,3,\n"
COST = Decimal("7.4")


class Shell:
    """A folder with a manifest, and a server whose books can be read."""

    def __init__(self, folder: Path, base: str, books: Accounts) -> None:
        self.folder, self.base, self.books = folder, base, books
        (folder / "prompts.csv").write_text(MANIFEST)

    def __call__(self, *words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(group, words, env={"BFL_API_KEY": KEY})
        assert result.exit_code == code, result.output + result.stderr
        return result

    def run(self, *words: str, code: int = 0) -> Result:
        return self("batch", "run", "prompts.csv", "--base-url", self.base, *words, code=code)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fluxwerk", "batch", "run", "prompts.csv", "--base-url", self.base, *words]
        with hearing_hangups():
            return subprocess.Popen(
                command, env={**os.environ, "BFL_API_KEY": KEY}, cwd=self.folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    def ledger(self) -> Ledger:
        return Ledger.open(self.folder / "prompts.ledger")

    @property
    def accepted(self) -> list[Any]:
        return self.books.tasks.all(0.0)


@contextmanager
def hearing_hangups() -> Iterator[None]:
    """Undo what nohup does, if these tests run under it: a run would rightly ignore a closed terminal."""
    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def books() -> Accounts:
    return Accounts([KEY])


@pytest.fixture
def pace() -> list[float]:
    return [0.0]


@pytest.fixture
def shell(tmp_path: Path, books: Accounts, pace: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    with loopback(Blank(), accounts=books, pace=lambda _: pace[0]) as base:
        yield Shell(tmp_path, base, books)


def test_plan_tells_the_price_by_model_and_sends_nothing(shell: Shell):
    said = shell("batch", "plan", "prompts.csv").output
    assert "2 × flux-2-pro: about 6 credits" in said
    assert "Planned 3 jobs in prompts.ledger, about 7.4 credits ($0.074) in all. Nothing was sent." in said
    assert "is planned in prompts.ledger already" in shell("batch", "plan", "prompts.csv").output
    assert shell.accepted == []


def test_plan_answers_with_json(shell: Shell):
    told = json.loads(shell("batch", "plan", "prompts.csv", "--json").stdout)
    assert (told["jobs"], told["estimated_cost"], told["already"]) == (3, 7.4, False)


def test_a_manifest_with_faults_leaves_no_ledger_behind(shell: Shell):
    (shell.folder / "prompts.csv").write_text("prompt,model\nfox,flux-99\n")
    result = shell("batch", "plan", "prompts.csv", code=2)
    assert "line 2, model" in result.stderr
    assert sorted(path.name for path in shell.folder.iterdir()) == ["prompts.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_processes_that_start_on_a_new_manifest_at_once_share_one_ledger(shell: Shell):
    rows = "".join(f"fox {n},64x64,fox-{n}.png\n" for n in range(60))
    (shell.folder / "prompts.csv").write_text("prompt,size,output\n" + rows)
    running = [shell.start() for _ in range(4)]
    told = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, told
    with shell.ledger() as ledger:
        judge.judge(ledger, shell.accepted)
        assert ledger.budget.sums().jobs == {Stage.SAVED: 60}
    assert sorted(path.name for path in shell.folder.iterdir()) == ["prompts-images", "prompts.csv", "prompts.ledger"]


def test_a_manifest_with_faults_takes_no_ledger_away_from_another_process(shell: Shell):
    rows = "".join(f"fox {n}\n" for n in range(6000))
    (shell.folder / "bad.csv").write_text("prompt\n" + rows + 'never "closed\n"\n')
    (shell.folder / "good.csv").write_text("prompt\nan owl\n")
    command = [sys.executable, "-m", "fluxwerk", "batch", "plan", "bad.csv", "-l", "a.ledger"]
    with subprocess.Popen(command, cwd=shell.folder, stderr=subprocess.PIPE) as process:
        while not list(shell.folder.glob("*a.ledger*")) and process.poll() is None:
            pass
        shell("batch", "plan", "good.csv", "-l", "a.ledger")
        assert process.stderr
        assert b"the quotes do not fit" in process.stderr.read()
    assert "1 planned" in shell("batch", "status", "-l", "a.ledger").output


def test_run_plans_and_carries_everything_and_the_books_agree(shell: Shell):
    said = shell.run().output
    assert "3 saved; 7.4 credits ($0.074) spent." in said
    with shell.ledger() as ledger:
        judge.judge(ledger, shell.accepted)
        assert ledger.budget.sums().spent == judge.charged(shell.accepted) == COST
    assert len(list((shell.folder / "prompts-images").glob("*.png"))) == 3
    assert "3 saved" in shell.run().output
    assert len(shell.accepted) == 3


def test_run_offline_needs_no_key_and_says_that_nothing_was_charged(shell: Shell):
    said = shell("batch", "run", "prompts.csv", "--offline").output
    assert "the offline server charges nothing" in said
    refused = shell.run(code=2)
    assert "either placeholders or real images" in refused.stderr


def test_run_answers_with_an_event_a_line(shell: Shell):
    lines = [json.loads(line) for line in shell.run("--json").stdout.splitlines()]
    kinds = [line.get("event") for line in lines]
    assert kinds.count("saved") == kinds.count("submitting") == 3
    assert kinds[-1] == "done"
    saved = next(line for line in lines if line.get("event") == "saved")
    assert Path(saved["path"]).exists()
    assert len(saved["sha256"]) == 64


def test_a_cap_ends_the_run_and_a_higher_one_lets_it_go_on(shell: Shell):
    said = shell.run("--max-cost", "5", code=4).output
    assert "raise --max-cost" in said
    assert judge.charged(shell.accepted) <= 5
    assert "must be at least" in shell.run("--max-cost", "1", code=2).stderr
    shell.run("--max-cost", "none")
    assert judge.charged(shell.accepted) == COST


def test_under_a_cap_that_is_not_reached_nobody_is_told_to_raise_it(shell: Shell):
    (shell.folder / "prompts.csv").write_text(
        "prompt,size\n" + "".join(f"fluxwerk:error {n},64x64\n" for n in range(20))
    )
    said = shell.run("--max-cost", "500", "--max-failures", "0", "--concurrency", "1", code=1).output
    assert "at most 0 may" in said
    assert "--max-cost" not in said


@pytest.mark.parametrize("wrong", [["--name", "{bad"], ["-o", "ftp://example.com"]])
def test_what_was_refused_in_one_run_is_forgotten_in_the_next(shell: Shell, wrong: list[str]):
    shell.run(*wrong, code=2)
    assert "3 saved" in shell.run().output


def test_what_was_said_in_one_run_holds_in_the_next(shell: Shell):
    shell.run("--max-cost", "3", "-o", "out", "--name", "{index}.{ext}", "--no-prompts", code=4)
    shell.run("--max-cost", "none")
    names = sorted(path.name for path in (shell.folder / "out").iterdir())
    assert names == ["1.png", "1.png.json", "2.png", "2.png.json", "3.png", "3.png.json"]
    assert "a bear" not in (shell.folder / "out" / "3.png.json").read_text()


def test_status_export_why_and_costs_tell_the_same(shell: Shell):
    shell.run()
    assert "3 saved" in shell("batch", "status").output
    facts = json.loads(shell("batch", "status", "prompts.csv", "--json").stdout)
    assert (facts["jobs"]["saved"], facts["spent"]) == (3, 7.4)
    rows = list(csv.DictReader(shell("batch", "export").stdout.splitlines()))
    assert [row["prompt"] for row in rows] == ["a fox", "a wolf", "a bear"]
    assert sum(Decimal(row["cost"]) for row in rows) == COST
    assert "planned → submitting" in shell("batch", "why", "1").output
    assert json.loads(shell("batch", "why", "1", "--json").stdout)["transitions"][-1]["after"] == "saved"
    by_tag = [json.loads(line) for line in shell("costs", "--by", "tag", "--json").stdout.splitlines()]
    assert sum(Decimal(str(row["credits"])) for row in by_tag) == COST
    head, *_, last = shell("costs", "--by", "tag").output.splitlines()
    assert last.startswith("in all")
    assert head.index("  credits") == last.index("  7.4")
    assert next(csv.DictReader(shell("costs", "--csv").stdout.splitlines()))["credits"] == "7.4"


def test_no_command_shows_a_signed_link_or_a_token(shell: Shell):
    shell.run()
    with shell.ledger() as ledger:
        token = ledger.row(1)["token"]
        with ledger.database.write() as transaction:
            transaction.run(
                "update jobs set url = 'https://d.bfl.ai/a.png?sig=secret', polling_url = 'https://x?k=secret'"
            )
    shown = "".join(shell(*words).output for words in (["batch", "why", "1"], ["batch", "export"], ["batch", "status"]))
    assert "secret" not in shown
    assert token not in shown


def test_export_writes_every_format(shell: Shell):
    shell.run()
    with shell.ledger() as ledger:
        digest = ledger.job(1).hash
    for ending in ("csv", "jsonl"):
        shell("batch", "export", "-o", f"out.{ending}", "--no-prompts")
        written = (shell.folder / f"out.{ending}").read_text()
        assert "a fox" not in written
        assert digest not in written
    assert len((shell.folder / "out.jsonl").read_text().splitlines()) == 3
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    shell("batch", "export", "-o", "out.parquet")
    assert parquet.read_table("out.parquet").column("seed").to_pylist() == [1, 2, 3]
    assert "must end in one of .csv" in shell("batch", "export", "-o", "out.xlsx", code=2).stderr
    assert len(shell("batch", "export", "--json").stdout.splitlines()) == 3


def test_a_prompt_that_a_spreadsheet_would_run_is_made_harmless(shell: Shell):
    (shell.folder / "prompts.csv").write_text('prompt,size\n"=HYPERLINK(""http://x"")",64x64\n')
    shell.run()
    assert "'=HYPERLINK" in shell("batch", "export").stdout


def test_the_account_and_the_ledger_are_compared(shell: Shell):
    shell.run()
    said = shell("costs", "--reconcile", "--base-url", shell.base).output
    assert "the balance fell by 7.4 credits ($0.074) and the ledger recorded 7.4 credits ($0.074): they agree." in said
    with shell.books.store.database.write() as transaction:
        transaction.run("update account set spent = spent + 5000000")
    said = shell("costs", "--reconcile", "--base-url", shell.base).output
    assert "They differ by 5 credits ($0.05)." in said
    told = shell("costs", "--reconcile", "--json", "--base-url", shell.base).stdout.splitlines()
    assert json.loads(told[-1])["difference"] == 5


def test_doubts_explain_why_the_account_lost_less_than_the_ledger_booked(shell: Shell):
    shell("batch", "plan", "prompts.csv")
    shell("costs", "--reconcile", "--base-url", shell.base)
    in_doubt(shell)
    shell.run(code=7)
    said = shell("costs", "--reconcile", "--base-url", shell.base).output
    assert "in doubt. They differ by 3 credits ($0.03)." in said
    assert "Jobs in doubt that were not charged can explain the difference" in said


def in_doubt(shell: Shell, jobs: int = 1) -> None:
    """Pretend that the process died right after the submits of the first jobs."""
    shell("batch", "plan", "prompts.csv")
    with shell.ledger() as ledger:
        worker = ledger.leases.register()
        ledger.submitting(worker, jobs, shell.base)
        ledger.leases.unregister(worker)


@pytest.mark.parametrize(("word", "stage"), [("--charged", "failed"), ("--resubmit", "planned")])
def test_a_doubt_is_listed_explained_and_settled(shell: Shell, word: str, stage: str):
    in_doubt(shell)
    assert "in doubt: job 1 (line 2)" in shell("batch", "status").output
    assert "settle 1 --collect TASK" in shell("batch", "why", "1").output
    assert f"Job 1 is {stage} now." in shell("batch", "settle", "1", word).output
    assert "not in doubt" in shell("batch", "settle", "1", word, code=8).stderr
    assert "Exactly one of" in shell("batch", "settle", "1", code=2).stderr


def test_all_doubts_of_a_model_are_settled_alike(shell: Shell):
    in_doubt(shell, 3)
    told = json.loads(shell("batch", "settle", "--all", "charged", "--model", "flux-2-pro", "--json").stdout)
    assert [one["stage"] for one in told["settled"]] == ["failed", "failed"]
    assert "Job 2 is planned now." in shell("batch", "settle", "--all", "not-charged").output
    assert "No job was settled." in shell("batch", "settle", "--all", "not-charged").output


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--charged"], "need a JOB"), (["1", "--charged", "--all", "charged"], "Exactly one"), ([], "need a terminal")],
)
def test_settling_without_a_job_or_an_answer_says_what_is_needed(shell: Shell, words: list[str], told: str):
    shell("batch", "plan", "prompts.csv")
    assert told in shell("batch", "settle", *words, code=2).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the questions are asked through a pseudo-terminal")
def test_settling_without_a_job_asks_about_each_doubt(shell: Shell):
    import pty  # noqa: PLC0415  (not on Windows)

    in_doubt(shell, 3)
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"c\nt\nabc\nq\n")
    command = [sys.executable, "-m", "fluxwerk", "batch", "settle", "--ledger", "prompts.ledger"]
    done = subprocess.run(
        command, cwd=shell.folder, stdin=terminal, capture_output=True, text=True, timeout=60, check=True
    )
    os.close(keyboard)
    os.close(terminal)
    assert "'a fox'" in done.stdout
    with shell.ledger() as ledger:
        assert [row["stage"] for row in ledger.rows()] == ["failed", "submitted", "in doubt"]


def test_a_balance_settles_a_doubt_and_why_shows_the_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first submit is answered by the error page of a proxy, and was not taken."""
    monkeypatch.chdir(tmp_path)
    books = Accounts([KEY])
    with loopback(Blank(), accounts=books, trouble=[FaultRule(on="submit", do="page", status=502, first=1)]) as base:
        shell = Shell(tmp_path, base, books)
        shell.run("--exclusive-account", "--witness-after", "0")
    assert len(shell.accepted) == 3
    with shell.ledger() as ledger:
        settled = next(row["id"] for row in ledger.rows() if ledger.doubts.evidence(row["id"]))
    assert "none was charged" in shell("batch", "why", str(settled)).output
    [evidence] = json.loads(shell("batch", "why", str(settled), "--json").stdout)["evidence"]
    assert (evidence["verdict"], evidence["difference"]) == ("settled", 0)


def test_a_doubt_is_settled_by_its_task(shell: Shell):
    in_doubt(shell)
    told = json.loads(shell("batch", "settle", "1", "--collect", "abc", "--json").stdout)
    assert told["stage"] == "submitted"


def test_a_run_with_doubts_says_so_by_its_exit_code(shell: Shell):
    in_doubt(shell)
    assert "were never answered" in shell.run(code=7).output


def test_failed_jobs_are_tried_again_but_moderated_ones_only_if_asked(shell: Shell):
    shell("batch", "plan", "prompts.csv")
    with shell.ledger() as ledger:
        worker = ledger.leases.register()
        first, second, third = ledger.submitting(worker, 3, shell.base).jobs
        ledger.refused(first, ModerationError("no"))
        ledger.refused(second, TaskFailedError("no"))
        ledger.refused(third, ModerationError("no"))
        ledger.leases.unregister(worker)
    assert "use --all" in shell("batch", "retry", code=2).stderr
    assert "1 will be submitted again" in shell("batch", "retry", "--all").output
    assert json.loads(shell("batch", "retry", "1", "--json").stdout)["planned"] == 1
    assert "1 jobs failed" in shell.run(code=1).output
    shell.run("--retry-moderated", "yes")
    with shell.ledger() as ledger:
        assert ledger.budget.sums().count(Stage.SAVED) == 3


def test_an_image_is_made_again_from_its_origin(shell: Shell):
    shell.run()
    file = str(next((shell.folder / "prompts-images").glob("00001*.png")))
    told = json.loads(shell("replay", file).stdout)
    assert told == {"model": "flux-2-pro", "request": {"prompt": "a fox", "seed": 1, "width": 64, "height": 64}}
    shell("replay", file, "-o", "again.png", "--base-url", shell.base)
    assert (shell.folder / "again.png").read_bytes() == Path(file).read_bytes()


def test_an_origin_without_a_prompt_or_with_local_images_cannot_be_sent(shell: Shell):
    (shell.folder / "a.png").write_bytes(b"")
    facts: dict[str, Any] = {"fluxwerk": 1, "model": "flux-2-pro", "request": {}}
    (shell.folder / "a.png.json").write_text(json.dumps(facts))
    assert "was not recorded" in shell("replay", "a.png", "-o", "b.png", code=2).stderr
    facts["request"] = {"prompt": "a", "input_image": "sha256:" + "a" * 64}
    (shell.folder / "a.png.json").write_text(json.dumps(facts))
    assert "only their hashes" in shell("replay", "a.png", "-o", "b.png", code=2).stderr
    facts["request"] = {"prompt": "a", "images": ["https://example.com/a.png?…"]}
    (shell.folder / "a.png.json").write_text(json.dumps(facts))
    assert "queries were not recorded" in shell("replay", "a.png", "-o", "b.png", code=2).stderr


def test_which_ledger_is_meant_has_to_be_clear(shell: Shell):
    assert "there is none in this folder" in shell("batch", "status", code=2).stderr
    assert "There is no ledger" in shell("batch", "status", "prompts.csv", code=2).stderr
    assert "There is no ledger" in shell("batch", "run", "other.ledger", code=2).stderr
    shell("batch", "plan", "prompts.csv")
    shell("batch", "plan", "prompts.csv", "-l", "second.ledger")
    assert "there are 2" in shell("batch", "status", code=2).stderr
    assert "3 planned" in shell("batch", "status", "-l", "second.ledger").output


def test_a_ledger_goes_on_only_at_the_service_that_knows_its_tasks(shell: Shell):
    in_doubt(shell)
    with shell.ledger() as ledger:
        ledger.remember(base="https://api.bfl.ai")
    assert "which http" in shell.run(code=2).stderr


def test_a_cap_over_unknown_prices_is_refused(shell: Shell):
    shell("batch", "plan", "prompts.csv")
    with shell.ledger() as ledger, ledger.database.write() as transaction:
        transaction.run("update jobs set estimate = null")
    assert "--assume-price" in shell.run("--max-cost", "100", code=2).stderr


@pytest.mark.parametrize("amount", ["-1", "many", "nan"])
def test_an_amount_that_is_none_is_refused(shell: Shell, amount: str):
    assert "must be a number of credits" in shell.run("--max-cost", amount, code=2).stderr


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="rights do not bind root, nor Windows")
def test_a_ledger_that_may_not_be_written_says_so(shell: Shell):
    shell("batch", "plan", "prompts.csv")
    (shell.folder / "prompts.ledger").chmod(0o400)
    assert "cannot be written" in shell.run(code=8).stderr


def test_a_ledger_on_a_disk_that_is_read_only_says_so(shell: Shell):
    shell("batch", "plan", "prompts.csv")
    small = shell.folder / "disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a disk needs root on Linux")
    try:
        (small / "a.ledger").write_bytes((shell.folder / "prompts.ledger").read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        said = shell("batch", "run", str(small / "a.ledger"), "--base-url", shell.base, code=8).stderr
        assert "cannot be" in said
        assert "a.ledger" in said
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert shell.accepted == []


def read_until(process: subprocess.Popen[str], event: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if f'"event":"{event}"' in line:
            return
    pytest.fail(f"the run ended before {event}: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_signal_submits_nothing_more_and_collects_what_is_in_flight(shell: Shell, pace: list[float], number: str):
    pace[0] = 0.3
    many = "".join(f"fox {n},64x64\n" for n in range(60))
    (shell.folder / "prompts.csv").write_text("prompt,size\n" + many)
    process = shell.start("--json")
    read_until(process, "submitted")
    process.send_signal(getattr(signal, number))
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["ended"] == "stopped"
    with shell.ledger() as ledger:
        sums = ledger.budget.sums()
        assert sums.count(Stage.PLANNED) > 0
        assert sums.count(Stage.SAVED) == len(shell.accepted) == 60 - sums.count(Stage.PLANNED)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_the_first_signal_waits_no_longer_than_drain(shell: Shell, pace: list[float]):
    pace[0] = 3600.0
    process = shell.start("--json", "--drain", "0.3")
    for _ in range(3):
        read_until(process, "submitted")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["ended"] == "stopped"
    with shell.ledger() as ledger:
        assert ledger.budget.sums().jobs == {Stage.SUBMITTED: 3}


def test_a_timeout_bounds_the_run_and_keeps_what_was_paid_for(shell: Shell, pace: list[float]):
    pace[0] = 3600.0
    said = shell.run("--timeout", "1", code=6).output
    assert "The run ended early: the timeout of 1 s is reached." in said
    assert "3 jobs are in flight and paid for" in said
    with shell.ledger() as ledger:
        assert ledger.budget.sums().jobs == {Stage.SUBMITTED: 3}
    assert len(shell.accepted) == 3


def test_an_output_that_is_a_file_is_refused_before_the_first_submit(shell: Shell):
    (shell.folder / "taken").write_text("a file")
    assert "is a file, and must be a folder" in shell.run("-o", "taken", code=2).stderr
    assert shell.accepted == []
    assert "3 saved" in shell.run().output


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX")
def test_a_reader_of_the_events_who_leaves_puts_nothing_in_doubt(shell: Shell, pace: list[float]):
    pace[0] = 0.3
    (shell.folder / "prompts.csv").write_text("prompt,size\n" + "".join(f"fox {n},64x64\n" for n in range(60)))
    process = shell.start("--json")
    read_until(process, "submitting")
    assert process.stdout
    assert process.stderr
    with process.stderr as told:
        process.stdout.close()
        assert "Traceback" not in told.read()
    assert process.wait(30) == 1
    with shell.ledger() as ledger:
        sums = ledger.budget.sums()
        assert sums.count(Stage.DOUBTFUL) == 0
        assert 0 < sums.count(Stage.SAVED) == len(shell.accepted) < 60


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_two_signals_stop_at_once_and_the_next_run_collects(shell: Shell, pace: list[float]):
    pace[0] = 5.0
    process = shell.start("--json")
    for _ in range(3):
        read_until(process, "submitted")
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    with shell.ledger() as ledger:
        assert ledger.budget.sums().jobs == {Stage.SUBMITTED: 3}

    pace[0] = 0.0
    for job in shell.accepted:
        job.ready_at = job.accepted
    shell.run()
    assert len(shell.accepted) == 3
    with shell.ledger() as ledger:
        judge.judge(ledger, shell.accepted)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_run_goes_on_where_it_stopped(shell: Shell):
    (shell.folder / "prompts.csv").write_text("prompt,size\n" + "".join(f"fox {n},64x64\n" for n in range(80)))
    process = shell.start("--json", "--lease", "0.5")
    read_until(process, "saved")
    process.kill()
    process.communicate()

    shell.run("--lease", "0.5", code=_code_of(shell))

    with shell.ledger() as ledger:
        judge.judge(ledger, shell.accepted)
        if judge.settle_by_the_accounts(ledger, shell.accepted):
            shell.run()
        assert ledger.budget.sums().count(Stage.SAVED) == 80
        assert ledger.budget.sums().spent == judge.charged(shell.accepted) == 240


def _code_of(shell: Shell) -> int:
    """The run ends with 7 if the kill left doubts, which show once the dead process's lease has run out."""
    with shell.ledger() as ledger:
        return 7 if ledger.budget.sums().count(Stage.SUBMITTING, Stage.DOUBTFUL) else 0


def test_every_command_has_help_with_an_explanation():
    for name in ("plan", "run", "status", "retry", "settle", "export", "why"):
        shown = CliRunner().invoke(group, ["batch", name, "--help"])
        assert shown.exit_code == 0
        assert len(shown.output.splitlines()) > 8
    assert "settle" in CliRunner().invoke(group, ["batch", "--help"]).output
    assert CliRunner().invoke(group, ["batch", "nothing"]).exit_code == 2


def test_plan_fills_variables_and_lists_advice_by_line(tmp_path):
    manifest = tmp_path / "prompts.csv"
    manifest.write_text("prompt\na {{colour}} wall at dusk with no people\n")
    (tmp_path / "colours.csv").write_text("colour\nred\nblue\n")
    done = CliRunner().invoke(
        group, ["batch", "plan", str(manifest), "--vars", str(tmp_path / "colours.csv"), "--lint"]
    )
    assert done.exit_code == 0, done.output
    assert "Planned 2 jobs" in done.stdout
    assert "line 2:20: negation" in done.stderr
    assert "Advice: negation 2. The prompts are planned as they are." in done.stderr


@pytest.mark.parametrize("name", ["sheet.html", "sheet.png"])
def test_a_sheet_of_all_images_is_written(shell: Shell, name: str):
    (shell.folder / "few.csv").write_text("prompt,width,height\na fox,256,256\nan owl,256,256\n")
    shell("batch", "run", "few.csv", "--base-url", shell.base)
    done = shell("batch", "sheet", "few.csv", "-o", name)
    assert f"Wrote 2 jobs to {name}." in done.stderr
    if name.endswith(".html"):
        assert (shell.folder / name).read_text().count("<figure") == 2
    else:
        with Image.open(shell.folder / name) as opened:
            assert opened.width > opened.height
    assert shell("batch", "sheet", "few.csv", "-o", "sheet.gif", code=2)
