"""A wrong base URL: the refusal says what was asked and which mistake is likely."""

from __future__ import annotations

import pytest

from fluxwerk import Client, get_model
from fluxwerk.drive import drive
from fluxwerk.errors import APIStatusError
from fluxwerk.protocol import flow
from fluxwerk.types import Request, Response

BASE = "http://host:9"


@pytest.mark.parametrize(
    ("start", "path"),
    [
        (lambda: flow.submit(get_model("pro"), Request("pro", {"prompt": "x"}), BASE), "/v1/flux-2-pro"),
        (lambda: flow.ask_credits(BASE), "/v1/credits"),
    ],
    ids=["submit", "credits"],
)
@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (404, {}, " was asked. Check the base URL"),
        (
            301,
            {"location": "https://host:9/x?sig=CANARY"},
            " redirects to https://host:9, and a key follows no redirect",
        ),
    ],
)
def test_a_submit_or_a_question_to_a_wrong_address_says_what_was_asked(start, path, status, headers, said):
    calls = []

    def send(request, _budget):
        calls.append(request)
        return Response(status, headers, b'{"detail":"Not Found"}')

    with pytest.raises(APIStatusError) as caught:
        drive(start(), send)

    assert f"{BASE}{path}{said}" in str(caught.value)
    assert (caught.value.status, len(calls)) == (status, 1)
    assert "CANARY" not in str(caught.value)


def test_a_server_under_another_path_is_named_over_real_http(fluxwerk_server):
    with (
        Client("a-key", base_url=f"{fluxwerk_server}/flux") as client,
        pytest.raises(APIStatusError, match=r"404: Not Found\. http://127\.0\.0\.1:\d+/flux/v1/flux-2-pro was asked"),
    ):
        client.generate("a fox")
