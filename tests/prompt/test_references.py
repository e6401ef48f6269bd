"""Reference images are named by their numbers, with a role, and within range."""

from __future__ import annotations

from fluxwerk.prompt import lint


def found(prompt, images, model="flux-2-pro"):
    return [
        (one.rule, one.quote(prompt)) for one in lint(prompt, model, images=images) if one.rule.startswith("reference")
    ]


def test_a_number_out_of_range_is_quoted():
    prompt = "The cat of image 1 in the room of image 3"
    assert found(prompt, 2) == [("reference-range", "image 3"), ("reference-unused", "")]
    assert found(prompt, 0)[0] == ("reference-range", "image 1")


def test_numbers_in_a_row_are_all_read():
    assert found("The styles of images 1, 2 and 3", 3) == []
    assert found("The styles of images 1, 2 and 4", 3) == [("reference-range", "4"), ("reference-unused", "")]


def test_a_reference_that_is_never_mentioned_is_named():
    advice = [one.message for one in lint("A cat", "flux-2-pro", images=2) if one.rule == "reference-unused"]
    assert [text[:7] for text in advice] == ["image 1", "image 2"]


def test_a_single_image_needs_no_mention():
    assert found("Make the sky red", 1) == []


def test_a_mention_needs_a_role():
    assert ("reference-role", "image 2") in found("The cat of image 1. Image 1, image 2.", 2)


def test_words_count_as_numbers_where_there_are_images():
    assert found("The cat of the first image and the style of the second image", 2) == []
    assert found("The first photo of the moon", 0) == []


def test_more_images_than_the_model_takes_are_too_many():
    prompt = " ".join(f"The style of image {number}." for number in range(1, 6))
    assert found(prompt, 5, "flux-2-klein-4b") == [("reference-range", "")]
