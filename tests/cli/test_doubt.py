"""`--on-doubt` of generate: before a server that takes a submit, or does not, and never answers it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fluxwerk.cli.doubt import AGAIN
from fluxwerk.cli.group import group
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.testing import loopback

KEY = "a-key"
IN_DOUBT = 7


class Shop:
    """A server that loses the answer to its first submit, and what became of the submits."""

    def __init__(self, folder: Path, *, is_taken: bool) -> None:
        self._folder, self.taken = folder, int(is_taken)
        self._trouble = FaultRule(on="submit", do="reset", accepted=is_taken, first=1)
        self._books = Accounts()

    def generate(self, *words: str, answers: str = "", code: int = 0) -> Result:
        """Run the command, and hold its exit code."""
        with loopback(accounts=self._books, trouble=[self._trouble]) as base:
            command = ["generate", "a fox", "--width", "64", "--height", "64", "--base-url", base]
            output = ["-o", str(self._folder / "fox.png")]
            result = CliRunner().invoke(group, [*command, *output, *words], input=answers, env={"BFL_API_KEY": KEY})
        assert result.exit_code == code, result.output + result.stderr
        return result

    @property
    def bought(self) -> int:
        """How many images were charged."""
        return len(self._books.tasks.all(0.0))


@pytest.fixture(params=[False, True], ids=["not-taken", "taken"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    return Shop(tmp_path, is_taken=request.param)


@pytest.mark.parametrize("words", [(), ("--on-doubt", "settle"), ("--on-doubt", "stop")])
def test_without_evidence_a_doubt_ends_the_command_and_nothing_is_resubmitted(shop: Shop, words: tuple[str, ...]):
    assert "may have been charged" in shop.generate(*words, code=IN_DOUBT).stderr
    assert shop.bought == shop.taken


def test_resubmit_makes_the_image_and_may_pay_twice(tmp_path: Path):
    shop = Shop(tmp_path, is_taken=True)

    said = shop.generate("--on-doubt", "resubmit").stderr

    assert "both may be charged" in said
    assert (tmp_path / "fox.png").exists()
    assert shop.bought == 2


def test_ask_submits_again_for_who_says_yes(tmp_path: Path):
    shop = Shop(tmp_path, is_taken=False)

    said = shop.generate("--on-doubt", "ask", answers="y\n").stderr

    assert AGAIN in said
    assert (tmp_path / "fox.png").exists()
    assert shop.bought == 1


@pytest.mark.parametrize("answers", ["n\n", "\n", ""], ids=["no", "nothing", "nobody"])
def test_ask_leaves_the_doubt_unless_somebody_says_yes(shop: Shop, answers: str):
    said = shop.generate("--on-doubt", "ask", answers=answers, code=IN_DOUBT).stderr

    assert AGAIN in said
    assert shop.bought == shop.taken


def test_stop_submits_nothing_more_of_a_series_and_tells_the_doubt_by_its_exit_code(tmp_path: Path):
    shop = Shop(tmp_path, is_taken=False)

    said = shop.generate("--on-doubt", "stop", "-n", "60", code=IN_DOUBT).stderr

    assert "on_doubt is 'stop'" in said
    assert shop.bought < 60


def test_an_exclusive_account_whose_deadline_is_short_names_the_missing_evidence(tmp_path: Path):
    shop = Shop(tmp_path, is_taken=False)

    said = shop.generate("--exclusive-account", "--timeout", "5", code=IN_DOUBT).stderr

    assert "The balance could not be read" in said


@pytest.mark.parametrize("more", [("--exclusive-account",), ("-n", "2")])
def test_a_person_is_asked_about_one_image_and_before_any_balance(shop: Shop, more: tuple[str, ...]):
    said = shop.generate("--on-doubt", "ask", *more, code=2).stderr
    assert "--on-doubt" in said
    assert shop.bought == 0
