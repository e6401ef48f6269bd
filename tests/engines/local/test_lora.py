"""LoRAs by request: the folder is read while the server runs, and one pass holds samples with different ones."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")
pytest.importorskip("peft", reason="LoRAs need peft: pip install 'fluxwerk[diffusers]'")

from fluxwerk import catalog
from fluxwerk.engines import Order
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.load import load
from fluxwerk.engines.local.loop import Loop
from fluxwerk.engines.local.weights import read
from support import tiny
from support.painting import finish

# As for shared passes without LoRAs.
BOUND = 1e-5
FOX = Order("flux-2-klein-4b", "a red fox", 7, 128, 128)


@pytest.fixture
def styles(checkpoint, tmp_path):
    """Return a folder of two LoRAs, and a family that takes them."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for number, name in enumerate(("ink", "oil")):
        shutil.copy(tiny.lora(checkpoint("klein"), tmp_path / name, seed=number), folder / f"{name}.safetensors")
    weights = read(str(checkpoint("klein"))).with_loras(str(folder))
    return folder, weights


@pytest.fixture
def klein(styles):
    (row,) = styles[1].rows.values()
    return load([row], "cpu")[row.model]


def chosen(*entries: tuple[str, float]) -> Order:
    return replace(FOX, options={"lora": [{"name": name, "strength": strength} for name, strength in entries]})


def latents(family, *orders: Order) -> list:
    samples = [family.prepare(number, order) for number, order in enumerate(orders)]
    done = finish(Loop(budget=1e9), *samples)
    assert all(sample.fault is None for sample in done), [sample.fault for sample in done]
    assert {len(orders)} == {count for sample in done for count in sample.passes}
    return [sample.latents for sample in done]


def far(one, other) -> float:
    return float((one - other).abs().max())


def test_samples_of_one_pass_have_loras_of_their_own(klein) -> None:
    """One pass holds an order without a LoRA, two strengths of one, another one, and two at once."""
    orders = [
        FOX,
        chosen(("ink", 1.0)),
        chosen(("ink", 0.3)),
        chosen(("oil", -0.5)),
        chosen(("ink", 0.5), ("oil", 0.5)),
    ]
    together = latents(klein, *orders)
    for order, found in zip(orders, together, strict=True):
        assert far(found, latents(klein, order)[0]) <= BOUND
    for number, found in enumerate(together):
        assert all(far(found, other) > 100 * BOUND for other in together[:number])


def test_an_order_without_a_lora_is_as_if_none_were_loaded(klein, family) -> None:
    latents(klein, chosen(("ink", 1.0)))
    assert far(latents(klein, FOX)[0], latents(family("klein"), FOX)[0]) <= BOUND


def test_a_lora_by_request_equals_one_that_is_fused(klein, checkpoint, styles, tmp_path) -> None:
    table = tmp_path / "weights.toml"
    file = styles[0] / "ink.safetensors"
    table.write_text(
        f'[weights.flux-2-klein-4b]\npath = "{checkpoint("klein")}"\nloras = [{{ path = "{file}", scale = 0.7 }}]'
    )
    (row,) = read(str(table)).rows.values()
    fused = load([row], "cpu")[row.model]
    assert far(latents(klein, chosen(("ink", 0.7)))[0], latents(fused, FOX)[0]) <= BOUND


@pytest.mark.parametrize("columns", [{"quantize": "int8"}, {"quantize": "fp8"}, {"offload": "layers"}], ids=str)
def test_loras_work_on_weights_in_small_forms(klein, columns: dict) -> None:
    """A LoRA moves the latents of small weights as it moves those of the weights as they are."""
    small = load([replace(klein.row, **columns)], "cpu")[klein.row.model]
    plain, changed = latents(small, FOX, chosen(("ink", 1.0)))
    before, after = latents(klein, FOX, chosen(("ink", 1.0)))
    assert far(changed - plain, after - before) < 0.2 * far(after, before)


def test_loras_work_on_a_gguf_file(klein, checkpoint, styles, tmp_path) -> None:
    pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'fluxwerk[diffusers]'")
    from support import files  # noqa: PLC0415  (needs gguf)

    for part in ("text_encoder", "tokenizer", "vae"):
        shutil.copytree(checkpoint("klein") / part, tmp_path / part)
    file = files.write_gguf(files.tensors_of(checkpoint("klein")), tmp_path / "klein.gguf", "Q8_0")
    (row,) = read(str(file)).with_loras(str(styles[0])).rows.values()
    plain, changed = latents(load([row], "cpu")[row.model], FOX, chosen(("ink", 1.0)))
    before, after = latents(klein, FOX, chosen(("ink", 1.0)))
    assert far(changed - plain, after - before) < 0.2 * far(after, before)


def test_a_file_that_changes_counts_at_once(klein, styles) -> None:
    before = latents(klein, chosen(("ink", 1.0)))[0]
    shutil.copy(styles[0] / "oil.safetensors", styles[0] / "ink.safetensors")
    os.utime(styles[0] / "ink.safetensors", ns=(1, 1))
    after = latents(klein, chosen(("ink", 1.0)))[0]
    assert far(before, after) > 100 * BOUND
    assert far(after, latents(klein, chosen(("oil", 1.0)))[0]) <= BOUND


def test_a_file_that_does_not_fit_fails_its_own_order_only(klein, styles) -> None:
    (styles[0] / "bad.safetensors").write_bytes(b"nothing")
    samples = [klein.prepare(number, order) for number, order in enumerate([FOX, chosen(("bad", 1.0))])]
    good, bad = finish(Loop(budget=1e9), *samples)
    assert good.fault is None
    assert "the LoRA bad cannot be used" in str(bad.fault)


def test_the_finetuned_path_names_one(klein, styles) -> None:
    row = replace(klein.row, model="flux-2-klein-4b-finetuned")
    tuned = replace(FOX, model=row.model, options={"finetune_id": "ink", "finetune_strength": 0.4})
    assert far(latents(klein, tuned)[0], latents(klein, chosen(("ink", 0.4)))[0]) == 0
    ability = Ability(type(styles[1])({row.model: row}))
    assert not ability.faults(tuned)
    (fault,) = ability.faults(replace(tuned, options={"finetune_id": "../secret"}))
    assert str(fault) == "finetune_id = '../secret': is no LoRA of this server (one of ink, oil)"


@pytest.mark.parametrize(
    "given",
    [
        "ink",
        [{}],
        [{"name": 3}],
        [{"name": "ink", "strength": "much"}],
        [{"name": "ink", "strength": 5}],
        [{"name": "ink", "weight": 1}],
        [{"name": "ink"}] * 2,
        [{"name": str(number)} for number in range(5)],
    ],
)
def test_what_is_no_list_of_loras_is_refused(styles, given: object) -> None:
    (fault,) = Ability(styles[1]).faults(replace(FOX, options={"lora": given}))
    assert (fault.field, fault.allowed) == ("lora", "is not a list of LoRAs")


def test_a_lora_that_is_not_in_the_folder_is_refused(styles) -> None:
    (fault,) = Ability(styles[1]).faults(chosen(("../ink", 1.0)))
    assert str(fault) == "lora = '../ink': is no LoRA of this server (one of ink, oil)"
    facts = Ability(styles[1]).facts(catalog.get_model("flux-2-klein-4b"))
    assert (facts["loras"], facts["extensions"]) == (["ink", "oil"], ["lora"])
