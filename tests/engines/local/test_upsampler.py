"""A small model writes prompts out where its weights are given, and only for orders that ask for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import torch
import transformers
from diffusers.modular_pipelines.flux3 import prompt_upsampler as stock
from PIL import Image

from fluxwerk import catalog
from fluxwerk.engines import Order
from fluxwerk.engines.local import instructions
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.memory import need
from fluxwerk.engines.local.processor import load_seeing
from fluxwerk.engines.local.upsampler import Upsampler
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError
from support import tiny
from support.photos import photo, png

FOX = Order("flux-2-klein-4b", "a red fox", 7, 64, 64, options={"prompt_upsampling": True})
WHALE = replace(FOX, model="flux-3-image-klein", prompt="a blue whale")
# One is larger than an upsampler sees it, and one far from square.
PHOTOS = [photo(1200, 900, 1), photo(400, 300, 2), photo(100, 800, 3)]


@pytest.fixture
def weights(checkpoint, tmp_path):
    """Return a klein beside a tiny language model."""
    folder = tmp_path / "writer"
    whole = transformers.Qwen3ForCausalLM.from_pretrained(str(checkpoint("klein") / "text_encoder"))
    whole.generation_config.eos_token_id = list(range(100))  # so that an answer ends soon
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


def test_an_answer_may_be_as_long_as_in_the_stock_pipeline() -> None:
    assert instructions.most_tokens("Flux3DistilledModularPipeline") == stock.MAX_NEW_TOKENS


def test_the_writer_counts_as_memory(weights) -> None:
    (row,) = weights.rows.values()
    one = need(row, "cpu")
    more = one.resident(row) - replace(one, upsampler=type(one.upsampler)()).resident(row)
    assert more == one.upsampler.size(None, 4) > 0


@pytest.fixture(scope="module")
def own(checkpoint, tmp_path_factory):
    """Return a FLUX.3 beside an upsampler in the layout of its own one."""
    place = tmp_path_factory.mktemp("flux3")
    tiny.upsampler(place / "flux-3-image-klein-pup")
    table = place / "weights.toml"
    table.write_text(
        f'[weights.flux-3-image-klein]\npath = "{checkpoint("flux3-klein")}"\nupsampler = "flux-3-image-klein-pup"'
    )
    return read(str(table))


@pytest.mark.parametrize("references", [0, 1, 3])
def test_flux3s_own_upsampler_writes_what_the_stock_block_writes(own, references: int) -> None:
    """The stock block gets the weights that transformers loads by itself, and prepares the references in its way."""
    (row,) = own.rows.values()
    order = replace(WHALE, references=tuple(png(image) for image in PHOTOS[:references]))
    written = load([row], "cpu")[row.model].upsample(order).prompt
    model = transformers.Qwen3_5ForConditionalGeneration.from_pretrained(row.upsampler)
    images = stock.prepare_references(PHOTOS[:references]) if references else None
    assert written == stock.upsample_prompt(model, load_seeing(Path(row.upsampler)), WHALE.prompt, images)
    assert written not in ("", WHALE.prompt)


def test_an_answer_depends_on_whether_there_are_references(own) -> None:
    (row,) = own.rows.values()
    klein = load([row], "cpu")[row.model]
    seen = [klein.upsample(replace(WHALE, references=files)).prompt for files in ((), (png(PHOTOS[0]),))]
    assert seen[0] != seen[1]


def test_an_image_becomes_one_token_for_each_32_pixels_of_both_sides(own) -> None:
    (row,) = own.rows.values()
    processor = load_seeing(Path(row.upsampler))
    given = processor.apply_chat_template(instructions.for_images("swap them", PHOTOS), add_generation_prompt=True)
    sizes = [image.size for image in stock.prepare_references(PHOTOS)]
    token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    count = sum(width * height // 32**2 for width, height in sizes)
    assert int((given["input_ids"] == token).sum()) == int(given["mm_token_type_ids"].sum()) == count
    text = processor.decode(given["input_ids"][0], skip_special_tokens=True)
    assert "You see the reference image(s), attached in order" in text
    assert "User request: swap them\nOutput the caption." in text


def test_the_upsampler_gets_the_pixels_of_the_references(own) -> None:
    (row,) = own.rows.values()
    grey = Image.new("RGB", (320, 256), (191, 191, 191))
    given = load_seeing(Path(row.upsampler)).apply_chat_template(instructions.for_images("x", [grey]))
    assert given["image_grid_thw"].tolist() == [[1, 16, 20]]
    assert given["pixel_values"].shape == (16 * 20, 3 * 2 * 16 * 16)
    assert float((given["pixel_values"] - (191 / 127.5 - 1)).abs().max()) < 0.01


def test_references_are_taken_where_the_upsampler_sees_them(own) -> None:
    order = replace(WHALE, references=(png(PHOTOS[0]),))
    assert not Ability(own).faults(order)


def test_the_upsampler_of_a_saved_pipeline_has_its_processor_beside_it(own, checkpoint, tmp_path) -> None:
    (row,) = own.rows.values()
    shutil.copytree(row.upsampler, tmp_path / "prompt_upsampler_processor")
    (tmp_path / "prompt_upsampler").mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (tmp_path / "prompt_upsampler_processor" / name).rename(tmp_path / "prompt_upsampler" / name)
    parted = replace(row, upsampler=str(tmp_path / "prompt_upsampler"))
    whole, other = (load([each], "cpu")[row.model].upsample(WHALE).prompt for each in (row, parted))
    assert whole == other


def test_a_model_that_writes_nothing_is_named(checkpoint, tmp_path) -> None:
    shutil.copytree(checkpoint("flux1-dev") / "text_encoder_2", tmp_path / "t5")
    with pytest.raises(ValueError, match="t5 is a T5EncoderModel, which does not write text"):
        Upsampler(tmp_path / "t5", "cpu", torch.float32, "Flux2KleinPipeline", sees=False)


def test_a_folder_without_a_model_is_refused(checkpoint, tmp_path) -> None:
    table = tmp_path / "weights.toml"
    table.write_text(f'[weights.flux-2-klein-4b]\npath = "{checkpoint("klein")}"\nupsampler = "."')
    with pytest.raises(InvalidUsageError, match=r"must be a folder with a config\.json and safetensors"):
        read(str(table))
