"""Advice on a manifest: by line, for the model and images of each row."""

from __future__ import annotations

from fluxwerk.batch.advice import advice_on


def found(manifest, **given):
    return [(number, advice.rule) for number, _, advice in advice_on(manifest, **given)]


def test_advice_names_the_line_and_judges_for_its_model(tmp_path):
    manifest = tmp_path / "prompts.csv"
    manifest.write_text(
        "prompt,model\na street at dusk with no people,flux-2-pro\nlight,flux-2-klein-4b\na wall at dusk,\n"
    )
    assert found(manifest) == [(2, "negation"), (3, "length")]


def test_images_of_a_row_are_counted(tmp_path):
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text(
        '{"prompt": "The cat of image 3, keep the rest", "images": ["a.png", "b.png"]}\n'
        '{"prompt": "The cat of image 2, keep the rest", "images": "a.png"}\n'
        '{"prompt": "The cat of image 2, keep the rest", "input_image": "a.png", "input_image_2": "b.png"}\n'
    )
    ranges = [number for number, rule in found(manifest) if rule == "reference-range"]
    assert ranges == [1, 2]


def test_switches_of_a_row_count(tmp_path):
    manifest = tmp_path / "signs.csv"
    manifest.write_text('prompt,prompt_upsampling\n"a sign ""OPEN"" in neon letters",false\n')
    assert "upsampling" not in {rule for _, rule in found(manifest, model="flux-2-flex")}


def test_an_equal_prompt_is_judged_once_and_variables_are_filled(tmp_path):
    manifest = tmp_path / "prompts.txt"
    manifest.write_text("a {{what}} with no people at dusk\na street with no people at dusk\n")
    assert found(manifest, variables=["what=street,beach"]) == [(1, "negation"), (1, "negation")]
