"""A mistake on the command line is answered in one voice: what is wrong, what is allowed, what to do next."""

import pytest
from click.testing import CliRunner

from fluxwerk.cli.group import COMMANDS, group


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BFL_API_KEY", raising=False)
    monkeypatch.delenv("BFL_BASE_URL", raising=False)


def answer(*words):
    done = CliRunner().invoke(group, list(words), prog_name="fluxwerk")
    assert done.exit_code == 2, done.output
    return done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("genrate",),
        ("--oflline",),
        ("generate",),
        ("generate", "x", "--widht", "4"),
        ("generate", "x", "--width", "wide"),
        ("generate", "x", "--option", "foo"),
        ("generate", "x", "-m", "flux-9"),
        ("generate", "x", "--seed"),
        ("price", "flux-2-pro", "more"),
        ("batch", "rum"),
        ("keys", "ad"),
        ("serve", "--credits", "plenty"),
    ],
)
def test_every_usage_error_has_one_voice(words):
    shown = answer(*words)
    assert shown.startswith("Error: ")
    assert "Error:  " not in shown
    assert "Usage:" not in shown
    assert "InvalidUsageError" not in shown


@pytest.mark.parametrize("name", ["generate", "edit", "fill"])
def test_a_prompt_without_quotes_is_shown_with_them(name):
    images = ("-i", "a.png") if name != "generate" else ()
    assert f'Put it in quotes: fluxwerk {name} "a red fox".' in answer(name, "a", "red", "fox", *images)


def test_quotes_within_a_prompt_are_escaped():
    assert '"a \\"red\\" fox"' in answer("generate", "a", '"red"', "fox")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("genrate", "x"), "generate`?"),
        (("batch", "rum"), "batch run`?"),
        (("keys", "ad"), "keys add`?"),
        (("webhook", "lisen"), "webhook listen`?"),
        (("generate", "x", "--widht", "4"), "Did you mean --width?"),
        (("generate", "x", "-m", "flux-2-prow"), "did you mean 'flux-2-pro'?"),
    ],
)
def test_a_misspelt_word_gets_the_nearest_one(words, near):
    assert near in answer(*words)


def test_an_unknown_command_gets_the_list_of_commands():
    shown = answer("xyzzy")
    assert ", ".join(COMMANDS) in shown
    assert "Did you mean" not in shown


def test_an_option_before_its_command_is_explained():
    assert "Write the options of a command after the command." in answer("--offline", "generate", "x")


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("--width", "wide"), "--width: 'wide' must be a whole number."),
        (("--guidance", "high"), "--guidance: 'high' must be a number."),
        (("--timeout", "0"), "--timeout: 0.0 must be at least 0.1."),
        (("--count", "0"), "--count: 0 must be from 1 to 100."),
        (("--count", "many"), "--count: 'many' must be a whole number."),
        (("--region", "mars"), "--region: 'mars' must be one of 'global', 'eu', 'us'."),
        (("--env-file", "no.env"), "--env-file: 'no.env' does not exist."),
        (("--seed",), "--seed needs a value after it."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(words, allowed):
    assert allowed in answer("generate", "x", *words)


def test_a_missing_secret_names_its_environment_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("BFL_WEBHOOK_SECRET", raising=False)
    (tmp_path / "hook.json").write_text("{}")
    assert "--secret is missing. It can also be set as BFL_WEBHOOK_SECRET." in answer("webhook", "sign", "hook.json")
