"""Prompts: each is encoded once, through no more layers than are used, and not one bit changes by that."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="open weights need torch: pip install 'fluxwerk[diffusers]', CPU build suffices")

import diffusers
import torch

from fluxwerk.engines.local.text import Encoder, Text, truncate


def test_only_the_latest_prompts_are_remembered() -> None:
    asked: list[str] = []

    def encode(prompt: str) -> Text:
        asked.append(prompt)
        return Text(prompt, None)

    encoder = Encoder(encode, remembered=2)
    for prompt in "abaca":
        assert encoder(prompt).embeds == prompt
    encoder("b")
    assert asked == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("name", "pipeline", "layers"), [("klein", "Flux2KleinPipeline", 27), ("dev", "Flux2Pipeline", 30)]
)
@torch.no_grad()
def test_the_shortened_encoder_gives_the_same_bits(checkpoint, name: str, pipeline: str, layers: int) -> None:
    pipe = getattr(diffusers, pipeline).from_pretrained(str(checkpoint(name)), local_files_only=True)

    def encode(prompt: str) -> Text:
        return Text(pipe.encode_prompt(prompt=prompt)[0], None)

    prompts = ["", "a red fox", "Ein Fuchs & 狐狸 " * 40]
    whole = [encode(prompt).embeds for prompt in prompts]
    before = sum(one.numel() for one in pipe.text_encoder.parameters())
    assert truncate(pipe, encode)
    stack = getattr(pipe.text_encoder, "language_model", pipe.text_encoder)
    assert len(stack.layers) == layers
    assert sum(one.numel() for one in pipe.text_encoder.parameters()) < before
    assert all(torch.equal(one, encode(prompt).embeds) for one, prompt in zip(whole, prompts, strict=True))


@torch.no_grad()
def test_an_encoder_whose_bits_would_change_stays_whole(checkpoint) -> None:
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(str(checkpoint("klein")), local_files_only=True)

    def last_layer(prompt: str) -> Text:
        embeds = pipe.encode_prompt(prompt=prompt, text_encoder_out_layers=(9, 18, -1))[0]
        return Text(embeds, None)

    whole = last_layer("a red fox").embeds
    assert not truncate(pipe, last_layer)
    assert torch.equal(last_layer("a red fox").embeds, whole)


def test_t5_stays_as_it_is(family) -> None:
    assert not family("flux1-dev").is_truncated
    assert family("klein").is_truncated
