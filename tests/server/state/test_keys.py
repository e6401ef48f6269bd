"""Keys of a server of one's own: made once, shown once, kept as a hash, revoked at once."""

from __future__ import annotations

import json
import stat
from decimal import Decimal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk import InvalidUsageError
from fluxwerk.cli.group import group
from fluxwerk.server.state import keys
from fluxwerk.server.state.accounts import Accounts, digest_of, is_well_formed
from fluxwerk.server.state.keys import Keyring
from support.asking import ask, face, json_of, post


@pytest.fixture
def ring(tmp_path):
    return Keyring(tmp_path / "keys.json")


@given(st.binary(min_size=32, max_size=32))
def test_a_key_has_the_shape_of_bfls_and_a_checksum(entropy):
    key = keys.make(lambda _: entropy)
    assert keys.SHAPE.fullmatch(key)
    assert is_well_formed(key)
    assert not keys.is_mistyped(key)


@given(st.integers(4, 52), st.sampled_from(keys.DIGITS))
def test_one_wrong_letter_is_noticed(place, letter):
    key = keys.make(lambda count: bytes(range(count)))
    wrong = key[:place] + letter + key[place + 1 :]
    assert keys.is_mistyped(wrong) == (wrong != key)


@pytest.mark.parametrize("key", ["bfl_short", "a-key", "0b1e4a7c-0000-4000-8000-000000000000", ""])
def test_keys_from_elsewhere_are_never_called_mistyped(key):
    assert not keys.is_mistyped(key)


def test_two_keys_are_never_the_same():
    assert keys.make() != keys.make()


def test_a_key_is_shown_once_and_kept_as_its_hash(ring, tmp_path):
    key = ring.add("shop", Decimal(500))
    text = (tmp_path / "keys.json").read_text()
    (entry,) = ring.entries()
    assert key not in text
    assert key[4:-4] not in text
    assert (entry.sha256, entry.prefix, entry.last4, entry.credits) == (digest_of(key), "bfl_", key[-4:], "500")
    assert entry.shown == f"bfl_…{key[-4:]}"
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_a_key_opens_its_account_with_its_credits_and_no_other_key_does(ring):
    key = ring.add("shop", Decimal(5))
    of = face(accounts=Accounts(grants=ring.granted))
    assert json_of(ask(of, "GET", "/v1/credits", key=key)) == {"credits": 5}
    assert post(of, {"prompt": "x"}, key=key).status == 200
    assert post(of, {"prompt": "x"}, key=key).status == 402
    assert post(of, {"prompt": "x"}, key="another").status == 403


def test_a_revoked_key_ends_at_once_and_its_task_goes_on(ring):
    key = ring.add("shop")
    of = face(seconds=5, accounts=Accounts(grants=ring.granted))
    submitted = json_of(post(of, {"prompt": "x"}, key=key))
    ring.revoke("shop")
    assert post(of, {"prompt": "x"}, key=key).status == 403
    of.clock.sleep(5)
    assert json_of(ask(of, "GET", submitted["polling_url"], key=None))["status"] == "Ready"
    assert ring.entries()[0].revoked


def test_a_running_server_hears_of_what_another_process_did_to_the_file(ring, tmp_path):
    of = face(accounts=Accounts(grants=ring.granted))
    key = Keyring(tmp_path / "keys.json").add("shop")
    assert post(of, {"prompt": "x"}, key=key).status == 200
    Keyring(tmp_path / "keys.json").revoke(key[-4:])
    assert post(of, {"prompt": "x"}, key=key).status == 403


def test_a_half_written_keys_file_changes_nothing(ring, tmp_path, caplog):
    """A file that is half written by hand changes nothing until it is whole."""
    key = ring.add("shop")
    (tmp_path / "keys.json").write_text('{"keys": [')
    assert ring.granted(digest_of(key)) == 1_000_000
    assert "cannot be read" in caplog.text


def test_credits_can_be_added_in_the_file(ring, tmp_path):
    key = ring.add("shop", Decimal(3))
    of = face(accounts=Accounts(grants=ring.granted))
    post(of, {"prompt": "x"}, key=key)
    file = tmp_path / "keys.json"
    file.write_text(file.read_text().replace('"credits": "3"', '"credits": "13"'))
    assert json_of(ask(of, "GET", "/v1/credits", key=key)) == {"credits": 10}


@pytest.mark.parametrize("amount", ["NaN", "-1", "Infinity", "1e400", "many"])
def test_an_impossible_amount_of_credits_is_refused(amount, ring, tmp_path):
    """A sum that nobody can be given is refused in the file and on the command line."""
    key, file = ring.add("shop", Decimal(3)), tmp_path / "keys.json"
    file.write_text(file.read_text().replace('"credits": "3"', f'"credits": "{amount}"'))
    with pytest.raises(InvalidUsageError, match="not a file of keys"):
        Keyring(file)
    assert ring.granted(digest_of(key)) == 3
    for command in ("keys", "add", "more", "--file", str(tmp_path / "other.json")), ("serve", "--port", "0"):
        done = CliRunner().invoke(group, [*command, "--credits", amount])
        assert (done.exit_code, "must be a number from 0 to" in done.stderr) == (2, True)


def test_a_mistyped_key_is_told_so():
    key = keys.make()
    answer = post(face(accounts=Accounts(["known"])), {"prompt": "x"}, key=key[:-1] + ("A" if key[-1] != "A" else "B"))
    assert "checksum" in json_of(answer)["message"]
    assert json_of(answer)["detail"] == "Not authenticated - Invalid Authentication"


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "a/b"])
def test_a_strange_name_is_refused(ring, name):
    with pytest.raises(InvalidUsageError, match="name"):
        ring.add(name)


def test_a_name_is_taken_until_its_key_is_revoked(ring):
    ring.add("shop")
    with pytest.raises(InvalidUsageError, match="is taken"):
        ring.add("shop")
    ring.revoke("shop")
    assert ring.add("shop")


def test_what_names_no_key_or_several_revokes_none(ring):
    with pytest.raises(InvalidUsageError, match="is not an open key"):
        ring.revoke("shop")
    ring.add("a", key="one-same")
    ring.add("b", key="two-same")
    with pytest.raises(InvalidUsageError, match="more than one"):
        ring.revoke("same")
    assert [entry.revoked for entry in ring.entries()] == [None, None]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": [{"name": 1}]}', '{"keys": 1}'])
def test_a_file_that_holds_no_keys_is_said(tmp_path, text):
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(InvalidUsageError, match="is not a file of keys"):
        Keyring(file)


def run(*words: object):
    return CliRunner().invoke(group, [str(word) for word in words])


def test_the_command_makes_lists_and_revokes_a_key(tmp_path):
    file = tmp_path / "keys.json"
    made = run("keys", "add", "shop", "--credits", 50, "--file", file)
    key = made.stdout.strip()
    assert keys.SHAPE.fullmatch(key)
    assert "not shown again" in made.stderr
    listed = run("keys", "list", "--file", file)
    assert key not in listed.output
    assert f"bfl_…{key[-4:]}" in listed.output
    assert "50 credits" in listed.output
    assert "is revoked" in run("keys", "revoke", "shop", "--file", file).stderr
    assert "revoked" in run("keys", "list", "--file", file).output


def test_the_command_speaks_json_without_the_hash(tmp_path):
    file = tmp_path / "keys.json"
    made = json.loads(run("keys", "add", "shop", "--file", file, "--json").stdout)
    row = json.loads(run("keys", "list", "--file", file, "--json").stdout)
    assert (made["name"], row["name"], row["last4"]) == ("shop", "shop", made["key"][-4:])
    assert "sha256" not in row


@pytest.mark.parametrize("credit", ["x", "-1", "nan", "inf"])
def test_credits_that_are_none_are_refused(tmp_path, credit):
    refused = run("keys", "add", "shop", "--credits", credit, "--file", tmp_path / "keys.json")
    assert (refused.exit_code, "--credits" in refused.stderr) == (2, True)
