"""A small model writes prompts out where its weights are given, and only for orders that ask for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import transformers

from fluxwerk import catalog
from fluxwerk.engines import Order
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.memory import need
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError
from support import tiny

FOX = Order("flux-2-klein-4b", "a red fox", 7, 64, 64, options={"prompt_upsampling": True})


@pytest.fixture
def weights(checkpoint, tmp_path):
    """Return a klein beside a tiny language model."""
    folder = tmp_path / "writer"
    whole = transformers.Qwen3ForCausalLM.from_pretrained(str(checkpoint("klein") / "text_encoder"))
    whole.save_pretrained(folder)
    tiny.qwen().save_pretrained(folder)
    table = tmp_path / "weights.toml"
    table.write_text(f'[weights.flux-2-klein-4b]\npath = "{checkpoint("klein")}"\nupsampler = "writer"')
    return read(str(table))


def test_a_prompt_is_written_out_where_the_order_asks_for_it(weights) -> None:
    (row,) = weights.rows.values()
    klein = load([row], "cpu")[row.model]
    written = klein.upsample(FOX).prompt
    assert written not in ("", FOX.prompt)
    assert klein.upsample(FOX).prompt == written
    assert klein.upsample(replace(FOX, options={})).prompt == FOX.prompt


def test_upsampling_is_honoured_only_with_a_model_for_it(weights, checkpoint) -> None:
    able = Ability(weights)
    assert not able.faults(FOX)
    assert able.facts(catalog.get_model("flux-2-klein-4b"))["extensions"] == ["prompt_upsampling"]
    (fault,) = able.faults(replace(FOX, references=(b"",)))
    assert "sees no images" in fault.allowed
    (fault,) = able.faults(replace(FOX, options={"prompt_upsampling": "yes"}))
    assert fault.allowed == "must be true or false"
    (row,) = read(str(checkpoint("klein"))).rows.values()
    assert Ability(weights).refused(catalog.get_model("flux-dev"), row)["prompt_upsampling"]


def test_the_writer_counts_as_memory(weights) -> None:
    (row,) = weights.rows.values()
    one = need(row, "cpu")
    more = one.resident(row) - replace(one, upsampler=type(one.upsampler)()).resident(row)
    assert more == one.upsampler.size(None, 4) > 0


def test_a_folder_without_a_model_is_refused(checkpoint, tmp_path) -> None:
    table = tmp_path / "weights.toml"
    table.write_text(f'[weights.flux-2-klein-4b]\npath = "{checkpoint("klein")}"\nupsampler = "."')
    with pytest.raises(InvalidUsageError, match=r"must be a folder with a config\.json and safetensors"):
        read(str(table))
