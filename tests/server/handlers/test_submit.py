"""A submit may have fields that only the engine knows, and they reach it as they were written."""

from __future__ import annotations

import pytest

from fluxwerk.engines import FullAbilities
from support.asking import face, fault, json_of, kept, post

CHOSEN = [{"name": "ink", "strength": 0.5}]


class Styled(FullAbilities):
    """An engine that takes LoRAs by request."""

    def facts(self, model):
        return {"honoured": list(model.options), "extensions": ["lora"]}


@pytest.mark.parametrize("path", ["/v1/flux-2-pro", "/v1/flux-3-image-klein"])
def test_a_field_of_the_engine_reaches_it(path: str) -> None:
    """The second model refuses every field that it does not know."""
    of = face(abilities=Styled(), strict=True)
    answer = post(of, {"prompt": "a fox", "lora": CHOSEN}, path)
    assert answer.status == 200
    assert kept(of.state)[json_of(answer)["id"]].order.options["lora"] == CHOSEN


def test_without_such_an_engine_the_field_is_unknown() -> None:
    status, place, text = fault(post(face(strict=True), {"prompt": "a fox", "lora": CHOSEN}))
    assert (status, place) == (422, ["body", "lora"])
    assert "has no such field" in text
