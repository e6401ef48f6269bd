"""Weights take the first form that fits the memory, say what it costs, and refuse what cannot fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.engines import Order
from fluxwerk.engines.local.ability import Ability
from fluxwerk.engines.local.checkpoint import recognise_file
from fluxwerk.engines.local.kind import KINDS
from fluxwerk.engines.local.memory import GIGABYTE, RESERVE, STEP_BYTES, Amount, Need, need, total
from fluxwerk.engines.local.plan import bytes_of, fit, forms
from fluxwerk.engines.local.row import Row
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError
from support import sparse
from support.sparse import comfy, write_sparse, write_sparse_gguf


@pytest.fixture
def klein(tmp_path):
    return read(str(comfy(tmp_path, sparse.KLEIN_4B, 2560)))


@pytest.mark.parametrize(
    ("gigabytes", "columns"),
    [
        (80, (None, None, None, None, False)),
        (24, (None, None, None, None, False)),
        (18, (None, None, None, None, True)),
        (14, ("int8", None, None, None, True)),
        (11, ("int8", "int8", None, None, True)),
        (8, ("int8", None, "cpu", None, True)),
        (4, (None, None, None, "layers", True)),
    ],
)
def test_the_first_form_that_fits_is_taken(klein, gigabytes: float, columns: tuple) -> None:
    fitted, budget, said = fit(klein, "cuda:0", gigabytes * GIGABYTE)
    row = fitted.rows["flux-2-klein-4b"]
    assert (row.quantize, row.quantize_text, row.text_device, row.offload, row.tile) == columns
    assert budget.resident < gigabytes * GIGABYTE
    assert said[0].startswith("cuda:0: ")
    assert "cost: " in said[0]


def test_what_does_not_fit_in_any_form_is_refused(klein) -> None:
    with pytest.raises(InvalidUsageError, match=r"even block by block an image of 1024×1024 needs \d\.\d GB"):
        fit(klein, "cuda:0", 2 * GIGABYTE)


def test_a_column_of_the_operator_stays(tmp_path) -> None:
    file = comfy(tmp_path, sparse.KLEIN_4B, 2560)
    (tmp_path / "weights.toml").write_text(f'[weights.flux-2-klein-4b]\npath = "{file}"\nquantize = "fp8"')
    fitted, _, _ = fit(read(str(tmp_path / "weights.toml")), "cuda:0", 80 * GIGABYTE)
    assert fitted.rows["flux-2-klein-4b"].quantize == "fp8"
    fitted, _, _ = fit(read(str(tmp_path / "weights.toml")), "cuda:0", 13 * GIGABYTE, eight_bits="int8")
    assert fitted.rows["flux-2-klein-4b"].quantize == "fp8"


def test_a_form_of_one_byte_halves_the_matrices(klein) -> None:
    row = klein.rows["flux-2-klein-4b"]
    one = need(row, "cuda:0")
    assert one.transformer.size(None, 2) == pytest.approx(7.75 * GIGABYTE, rel=0.01)
    assert one.transformer.size("int8", 2) == pytest.approx(3.876 * GIGABYTE, rel=0.01)
    assert (one.width, one.transformer.blocks) == (3072, 25)


def test_an_order_that_cannot_fit_is_refused_before_it_starts(klein) -> None:
    fitted, budget, _ = fit(klein, "cuda:0", 18 * GIGABYTE)
    ability = Ability(fitted, [budget])
    assert not ability.faults(Order("flux-2-klein-4b", "x", 1, 1024, 1024))
    (fault,) = ability.faults(Order("flux-2-klein-4b", "x", 1, 16384, 16384))
    assert fault.field == "width"
    assert "needs" in fault.allowed
    assert "18.0 GB" in fault.allowed
    side = int(fault.hint.split("×")[0])
    assert budget.fault(Order("flux-2-klein-4b", "x", 1, side, side)) is None


def test_two_models_of_one_file_share_their_memory(tmp_path) -> None:
    file = comfy(tmp_path, sparse.KLEIN_4B, 2560)
    one = f'[weights.flux-2-klein-4b]\npath = "{file}"\n'
    (tmp_path / "weights.toml").write_text(one + f'[weights."flux-pro-1.0-fill"]\npath = "{file}"')
    rows = [(row, need(row, "cuda:0")) for row in read(str(tmp_path / "weights.toml")).rows.values()]
    assert total(rows, (1024, 1024)) == total(rows[:1], (1024, 1024))


@pytest.mark.parametrize(
    ("kind", "plain", "written"), [("flux3-klein", 1024, 3584), ("klein", 512, 512), ("flux1-schnell", 256, 256)]
)
def test_a_step_counts_the_longest_prompt_that_an_upsampler_may_write(kind: str, plain: int, written: int) -> None:
    row, one = Row("one", "weights", KINDS[kind]), Need(Amount(), Amount(), Amount(), number=2, width=3072)
    writing = replace(row, upsampler="writer")
    token = STEP_BYTES * one.width
    assert one.working(row, (0, 0)) == plain * token
    assert one.working(writing, (0, 0)) == written * token
    both = total([(writing, one), (row, one)], (0, 0))
    assert both == total([(row, one), (writing, one)], (0, 0)) == written * token + RESERVE


def test_a_quantised_file_is_not_quantised_again(tmp_path) -> None:
    """GGUF stays as it is, so the forms that quantise the transformer are passed over."""
    pytest.importorskip("gguf", reason="GGUF files need gguf: pip install 'fluxwerk[diffusers]'")
    comfy(tmp_path, sparse.KLEIN_4B, 2560)
    file = write_sparse_gguf(tmp_path / "diffusion_models" / "klein-Q8_0.gguf", sparse.KLEIN_4B, "Q8_0")
    fitted, budget, _ = fit(read(str(file)), "cuda:0", 9 * GIGABYTE)
    row = fitted.rows["flux-2-klein-4b"]
    assert (row.quantize, row.text_device) == (None, "cpu")
    assert budget.needs[row.model][1].transformer.size(None, 2) == pytest.approx(recognise_file(file).size)


def test_fp8_with_scales_is_counted_as_it_is_unpacked(tmp_path) -> None:
    shapes = sparse.flux2(5, 20, 3072, 7680, dtype="F8_E4M3")
    rows = {f"{name}_scale": ("F32", (shape[0],)) for name, (_, shape) in shapes.items() if name.endswith(".weight")}
    weights = read(str(comfy(tmp_path, {**shapes, **rows}, 2560)))
    plain = read(str(comfy(tmp_path / "plain", sparse.KLEIN_4B, 2560)))
    sizes = [need(weights.rows["flux-2-klein-4b"], "cuda:0").transformer.size(None, 2) for weights in (weights, plain)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.001)
    fitted, _, _ = fit(weights, "cuda:0", 9 * GIGABYTE)
    assert fitted.rows["flux-2-klein-4b"].quantize == "int8"


@given(st.floats(4, 100), st.floats(4, 100))
def test_more_memory_never_gives_a_worse_form(tmp_path_factory, one: float, other: float) -> None:
    place = tmp_path_factory.mktemp("fit")
    weights = read(str(comfy(place, sparse.KLEIN_4B, 2560)))
    words = [form.words for form in forms("int8")]

    def rank(gigabytes: float) -> int:
        _, _, said = fit(weights, "cuda:0", gigabytes * GIGABYTE)
        return next(number for number, word in enumerate(words) if said[0].startswith(f"cuda:0: {word},"))

    less, more = sorted((one, other))
    assert rank(more) <= rank(less)


@pytest.mark.parametrize(("text", "size"), [("24G", 24e9), ("24gb", 24e9), ("500M", 5e8), ("8.5G", 8.5e9)])
def test_an_amount_of_memory_is_read(text: str, size: float) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "24", "lots", "-1G", "nan"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(InvalidUsageError, match="must be an amount of memory"):
        bytes_of(text)


def test_a_vae_in_a_spoilt_file_is_said_to_be(tmp_path) -> None:
    file = comfy(tmp_path, sparse.KLEIN_4B, 2560)
    write_sparse(tmp_path / "vae" / "flux2-vae.safetensors", sparse.encoder(8, 1))
    with pytest.raises(InvalidUsageError, match="vae: is missing"):
        read(str(file))
