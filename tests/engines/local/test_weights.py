"""Which weights serve which model: folders and tables are read, and everything wrong with them is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluxwerk import catalog
from fluxwerk.engines.local.engine import licences
from fluxwerk.engines.local.kind import KINDS, recognise
from fluxwerk.engines.local.row import Lora
from fluxwerk.engines.local.weights import read
from fluxwerk.errors import InvalidUsageError


def folder(place: Path, pipeline: str = "Flux2KleinPipeline", card: str = "", **more: object) -> Path:
    """Write as much of a checkpoint as is looked at before torch is asked."""
    width = more.pop("width", 7680)
    guided = more.pop("guided", True)
    (place / "transformer").mkdir(parents=True)
    index = {"_class_name": pipeline, "vae": ["diffusers", "AutoencoderKL"], **more}
    (place / "model_index.json").write_text(json.dumps(index))
    config = {"joint_attention_dim": width, "guidance_embeds": guided}
    (place / "transformer" / "config.json").write_text(json.dumps(config))
    if card:
        (place / "README.md").write_text(card)
    return place


def table(place: Path, text: str) -> str:
    file = place / "weights.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("pipeline", "more", "models", "kind"),
    [
        ("Flux2KleinPipeline", {"is_distilled": True}, ["flux-2-klein-4b"], "klein"),
        ("Flux2KleinPipeline", {"is_distilled": False}, ["flux-2-klein-4b"], "klein-base"),
        ("Flux2KleinPipeline", {"is_distilled": True, "width": 12288}, ["flux-2-klein-9b"], "klein"),
        ("Flux2KleinKVPipeline", {}, ["flux-2-klein-9b-preview"], "klein-kv"),
        ("Flux2Pipeline", {}, ["flux-2-dev"], "dev"),
        ("FluxPipeline", {"guided": True}, ["flux-dev"], "flux1-dev"),
        ("FluxPipeline", {"guided": False}, ["flux-dev"], "flux1-schnell"),
        ("FluxKontextPipeline", {}, ["flux-kontext-pro"], "kontext"),
        ("FluxFillPipeline", {}, ["flux-pro-1.0-fill", "flux-pro-1.0-expand"], "fill"),
    ],
)
def test_a_folder_says_what_it_holds(tmp_path, pipeline: str, more: dict, models: list[str], kind: str) -> None:
    rows = read(str(folder(tmp_path / "one", pipeline, **more))).rows
    assert list(rows) == models
    assert {row.kind.name for row in rows.values()} == {kind}


def test_every_kind_serves_models_of_the_catalogue() -> None:
    for kind in KINDS.values():
        for model in kind.models:
            assert catalog.get_model(model).name == model


def test_a_folder_of_folders_serves_them_all(tmp_path) -> None:
    folder(tmp_path / "klein")
    folder(tmp_path / "dev", "Flux2Pipeline")
    assert set(read(str(tmp_path)).rows) == {"flux-2-klein-4b", "flux-2-dev"}


def test_two_folders_for_one_model_need_a_table(tmp_path) -> None:
    folder(tmp_path / "one")
    folder(tmp_path / "two")
    with pytest.raises(
        InvalidUsageError, match=r"one and two both serve flux-2-klein-4b \(choose one in a weights\.toml\)"
    ):
        read(str(tmp_path))


def test_a_table_says_everything(tmp_path) -> None:
    folder(tmp_path / "kontext", "FluxKontextPipeline")
    (tmp_path / "style.safetensors").touch()
    text = """
        [weights.kontext-max]
        path = "kontext"
        dtype = "bfloat16"
        device = "cuda:1"
        quantize = "fp8"
        offload = "model"
        loras = [{ path = "style.safetensors", scale = 0.8 }, "style.safetensors"]
        steps = 20
        guidance = 3.0
        licence = "by contract"
    """
    (row,) = read(table(tmp_path, text)).rows.values()
    assert (row.model, row.path, row.hub) == ("flux-kontext-max", str(tmp_path / "kontext"), False)
    assert (row.dtype, row.device, row.quantize, row.offload) == ("bfloat16", "cuda:1", "fp8", "model")
    style = str(tmp_path / "style.safetensors")
    assert row.loras == (Lora(style, 0.8), Lora(style, 1.0))
    assert (row.steps, row.guidance, row.licence) == (20, 3.0, "by contract")


def test_a_table_lies_beside_its_folders(tmp_path) -> None:
    folder(tmp_path / "klein")
    table(tmp_path, '[weights.klein-4b]\npath = "klein"\n')
    assert list(read(str(tmp_path)).rows) == ["flux-2-klein-4b"]


def test_a_name_on_the_hub_needs_its_kind(tmp_path) -> None:
    text = '[weights.flux-2-dev]\npath = "black-forest-labs/FLUX.2-dev"\n'
    with pytest.raises(InvalidUsageError, match=r"flux-2-dev\.pipeline"):
        read(table(tmp_path, text))
    (row,) = read(table(tmp_path, text + 'pipeline = "dev"\n')).rows.values()
    assert (row.hub, row.path, row.label()) == (True, "black-forest-labs/FLUX.2-dev", "black-forest-labs/FLUX.2-dev")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"names no model"),
        ("[weights", r"is not valid TOML"),
        ("[engine]\nfast = true", r"engine: is not a table"),
        ('[weights.flux-9]\npath = "klein"', r"flux-9"),
        ("[weights.klein-4b]", r"klein-4b\.path"),
        ('[weights.klein-4b]\npath = "nowhere"', r"model_index\.json"),
        ('[weights.klein-4b]\npath = "klein"\nspeed = 9', r"klein-4b\.speed"),
        ("weights = 3", r"weights = 3: must be a table"),
        ("[weights]\nklein-4b = 3", r"klein-4b = 3: must be a table"),
        ('[weights.klein-4b]\npath = ""', r"is not a folder"),
        ('[weights.klein-4b]\npath = "some/where"', r"some/where is not a folder; a name on the Hub needs"),
        ('[weights.klein-4b]\npath = "klein"\nsteps = "many"', r"klein-4b\.steps = 'many': must be a whole number"),
        ('[weights.klein-4b]\npath = "klein"\nsteps = 0', r"klein-4b\.steps = 0"),
        ('[weights.klein-4b]\npath = "klein"\nsteps = true', r"klein-4b\.steps = True"),
        ('[weights.flux-2-dev]\npath = "dev"\nguidance = nan', r"flux-2-dev\.guidance = nan: must be a number"),
        ('[weights.flux-2-dev]\npath = "dev"\nguidance = -1', r"flux-2-dev\.guidance = -1"),
        ('[weights.klein-4b]\npath = "klein"\nguidance = 3', r"klein-4b\.guidance = 3: these weights are distilled"),
        ('[weights.klein-4b]\npath = "klein"\ndevice = 1', r"klein-4b\.device = 1: must be a text"),
        ('[weights.klein-4b]\npath = "klein"\nlicence = ""', r"klein-4b\.licence = '': must be a text"),
        ('[weights.klein-4b]\npath = "klein"\npipeline = "dev"', r"'dev': does not match klein, which contains a Flux"),
        ('[weights.klein-4b]\npath = "klein"\npipeline = "sd"', r"'sd': does not match klein, which contains a Flux"),
        ('[weights.klein-4b]\npath = "klein"\nloras = "a"', r"klein-4b\.loras = 'a': must be a list"),
        ('[weights.klein-4b]\npath = "klein"\nloras = [3]', r"klein-4b\.loras = 3: is not a LoRA"),
        ('[weights.klein-4b]\npath = "klein"\nloras = [{ scale = 1 }]', r"is not a LoRA"),
        ('[weights.klein-4b]\npath = "klein"\nloras = [{ path = "a", scale = "big" }]', r"is not a LoRA"),
        ('[weights.klein-4b]\npath = "klein"\nloras = [{ path = "a", weight = 2 }]', r"is not a LoRA"),
        (
            '[weights.klein-4b]\npath = "klein"\n[weights.flux-2-klein-4b]\npath = "klein"',
            r"flux-2-klein-4b is configured twice",
        ),
        ('[weights.klein-4b]\npath = "klein"\ndtype = "int4"', r"must be one of bfloat16"),
        ('[weights.klein-4b]\npath = "klein"\nloras = ["style.bin"]', r"must be a \.safetensors file"),
        ('[weights.fill]\npath = "dev"', r"Flux2Pipeline cannot serve it \(it needs one of Flux2KleinPipeline"),
        ('[weights.klein-4b]\npath = "fill"', r"FluxFillPipeline cannot serve it"),
        ('[weights.vto]\npath = "klein"', r"open weights for this model do not exist"),
        ('[weights.flux-3]\npath = "klein"', r"open weights for this model do not exist"),
        ('[weights.klein-4b]\npath = "three"', r"SanaPipeline.*is not supported"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text: str, said: str) -> None:
    folder(tmp_path / "klein")
    folder(tmp_path / "dev", "Flux2Pipeline")
    folder(tmp_path / "fill", "FluxFillPipeline")
    folder(tmp_path / "three", "SanaPipeline")
    with pytest.raises(InvalidUsageError, match=said):
        read(table(tmp_path, text))


def test_a_table_may_say_what_a_folder_does_not_tell(tmp_path) -> None:
    folder(tmp_path / "klein")
    (row,) = read(table(tmp_path, '[weights.klein-4b]\npath = "klein"\npipeline = "klein-base"')).rows.values()
    assert row.kind is KINDS["klein-base"]


def test_a_place_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidUsageError, match="contains no weights"):
        read(str(tmp_path))
    with pytest.raises(InvalidUsageError, match="contains no weights"):
        read(str(tmp_path / "missing"))


def test_weights_that_bring_code_are_refused(tmp_path) -> None:
    with pytest.raises(InvalidUsageError, match=r"contains its own code \(transformer\)"):
        read(str(folder(tmp_path / "one", transformer=["my_model", "MyTransformer"])))


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt"])
def test_weights_in_pickles_are_refused(tmp_path, suffix: str) -> None:
    place = folder(tmp_path / "one")
    (place / "transformer" / f"model.{suffix}").touch()
    with pytest.raises(InvalidUsageError, match=f"contains pickles \\(model.{suffix}\\)"):
        read(str(place))


@pytest.mark.parametrize(
    ("card", "width", "licence"),
    [
        ("", 7680, "Apache-2.0"),
        ("", 12288, "FLUX non-commercial"),
        ("---\nlicense: apache-2.0\n---\nText", 12288, "Apache-2.0"),
        ("---\nlicense: other\nlicense_name: flux-non-commercial-license\n---\n", 7680, "flux-non-commercial-license"),
    ],
)
def test_the_licence_is_the_model_cards_or_the_known_one(tmp_path, card: str, width: int, licence: str) -> None:
    weights = read(str(folder(tmp_path / "some-klein", card=card, width=width)))
    (row,) = weights.rows.values()
    assert row.licence == licence
    assert list(licences(weights)) == [f"{row.model}: some-klein (Flux2KleinPipeline), licence {licence}"]


@pytest.mark.parametrize(
    ("name", "kind", "licence"),
    [
        ("black-forest-labs/FLUX.2-klein-4B", "klein", "Apache-2.0"),
        ("black-forest-labs/FLUX.2-klein-base-9B", "klein-base", "FLUX non-commercial"),
        ("somebody/klein-of-my-own", "klein", "not stated"),
        ("black-forest-labs/FLUX.1-Kontext-dev", "kontext", "FLUX non-commercial"),
    ],
)
def test_the_licence_of_a_name_on_the_hub_is_the_known_one(tmp_path, name: str, kind: str, licence: str) -> None:
    text = f'[weights.flux-2-klein-9b]\npath = "{name}"\npipeline = "{kind}"\n'
    (said,) = licences(read(table(tmp_path, text)))
    assert said.endswith(f", licence {licence}")


def test_a_pipeline_that_is_not_flux_is_not_recognised() -> None:
    assert recognise("StableDiffusionPipeline") is None


def test_fp8_for_all_reaches_every_row(tmp_path) -> None:
    weights = read(str(folder(tmp_path / "one", "FluxFillPipeline")))
    assert {row.quantize for row in weights.rows.values()} == {None}
    assert {row.quantize for row in weights.quantized("fp8").rows.values()} == {"fp8"}
    assert {row.quantize for row in weights.quantized("fp8").quantized(None).rows.values()} == {"fp8"}


def test_a_device_holds_its_own_rows_and_those_of_all(tmp_path) -> None:
    folder(tmp_path / "klein")
    folder(tmp_path / "dev", "Flux2Pipeline")
    text = '[weights.klein-4b]\npath = "klein"\n[weights.flux-2-dev]\npath = "dev"\ndevice = "cuda:1"\n'
    weights = read(table(tmp_path, text))
    assert [row.model for row in weights.on("cuda:0")] == ["flux-2-klein-4b"]
    assert [row.model for row in weights.on("cuda:1")] == ["flux-2-klein-4b", "flux-2-dev"]
