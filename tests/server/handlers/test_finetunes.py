"""Clients that ask for fine-tunes find that there are none."""

from __future__ import annotations

from support.asking import ask, face, fault, json_of


def test_an_account_has_no_finetunes():
    assert json_of(ask(face(), "GET", "/v1/my_finetunes")) == {"finetunes": []}


def test_the_details_of_a_finetune_need_its_id():
    assert fault(ask(face(), "GET", "/v1/finetune_details")) == (422, ["query", "finetune_id"], "Field required")


def test_a_finetune_by_id_is_not_found():
    answer = ask(face(), "GET", "/v1/finetune_details?finetune_id=mine")
    assert (answer.status, json_of(answer)["detail"]) == (404, "Finetune not found")


def test_finetunes_need_a_key_and_are_only_read():
    of = face()
    assert ask(of, "GET", "/v1/my_finetunes", key=None).status == 403
    assert ask(of, "GET", "/v1/finetune_details?finetune_id=x", key=None).status == 403
    assert ask(of, "POST", "/v1/my_finetunes").status == 405
