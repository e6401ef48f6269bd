"""Every form of the weights renders, close to their own number format, and takes the memory that was computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")
pytest.importorskip("torchao", reason="int8 needs torchao: pip install 'fluxwerk[diffusers]'")

import torch

from fluxwerk.engines import Order
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.loop import Loop
from fluxwerk.engines.local.memory import need
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.weights import read
from support.painting import finish, images
from support.tiny import BUILDERS

# The mean difference of a latent; latents reach from -6 to 6.
FORMS = [
    ({"quantize": "int8"}, 0.005),
    ({"quantize": "fp8"}, 0.025),
    ({"quantize": "int8", "quantize_text": "int8"}, 0.005),
    ({"text_device": "cpu"}, 1e-6),
    ({"offload": "layers"}, 1e-6),
    ({"tile": True}, 1e-6),
]


@pytest.fixture
def formed(checkpoint):
    def made(name: str, **columns: Any):
        row = next(iter(read(str(checkpoint(name))).rows.values()))
        return load([replace(row, **columns)], "cpu")[row.model]

    return made


def latents(family) -> Any:
    sample = family.prepare(1, Order(family.row.model, "a red fox", 7, 128, 128, options={"steps": 4}))
    (done,) = finish(Loop(), sample)
    assert images([done])[0].size == (128, 128)
    return done.latents


@pytest.mark.parametrize(("columns", "most"), FORMS, ids=str)
@pytest.mark.parametrize("name", ["klein", "flux3-klein", "flux1-dev"])
def test_every_form_renders_close_to_the_weights_as_they_are(
    formed, family, name: str, columns: dict, most: float
) -> None:
    far = (latents(formed(name, **columns)) - latents(family(name))).abs().mean()
    assert float(far) <= most
    assert ("quantize" in columns) == (float(far) > 1e-6)


def stored(module: Any) -> int:
    """Return the bytes of a module's weights; a quantised one holds others inside."""

    def size(tensor: Any) -> int:
        if hasattr(tensor, "__tensor_flatten__"):
            return sum(size(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
        return int(tensor.nbytes)

    return sum(size(tensor) for tensor in [*module.parameters(), *module.buffers()])


@pytest.mark.parametrize("quantize", [None, "fp8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(BUILDERS))
def test_weights_take_the_memory_that_was_computed(formed, name: str, dtype: str, quantize: str | None) -> None:
    family = formed(name, quantize=quantize, dtype=dtype)
    row: Row = family.row
    computed, pipe = need(row, "cpu"), family.pipe
    assert stored(pipe.transformer) == pytest.approx(computed.transformer.size(quantize, computed.number), rel=0.03)
    assert stored(pipe.vae) == pytest.approx(computed.vae.size(None, computed.number), rel=0.03)


def test_int8_holds_one_byte_a_value_and_a_scale_a_row(formed) -> None:
    family = formed("klein", quantize="int8", quantize_text="int8")
    computed = need(family.row, "cpu")
    # The matrices of tiny weights are 64 wide, so that a scale of four bytes a row is a sixteenth.
    assert stored(family.transformer) == pytest.approx(computed.transformer.size("int8", 4), rel=0.12)


def test_blocks_that_are_streamed_lie_in_main_memory(formed) -> None:
    family = formed("klein", offload="layers")
    assert {parameter.device.type for parameter in family.transformer.parameters()} == {"cpu"}
    assert family.is_truncated is False
    assert torch.isfinite(latents(family)).all()
