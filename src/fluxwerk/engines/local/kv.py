"""FLUX.2 [klein] KV: the first step reads the references, and later steps reuse its cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.sample import Sample


class KleinKV(Flux2):
    """FLUX.2 [klein] KV weights; plain klein weights would give different images this way."""

    def predict(self, samples: Sequence[Sample]) -> Tensor:
        """Run the first step with the references and keep its cache; run later steps with the cache."""
        first = samples[0]
        if first.reference_tokens is None:
            return super().predict(samples)
        common = {
            "timestep": self.times(samples),
            "guidance": None,
            "encoder_hidden_states": torch.cat([sample.text.embeds for sample in samples]),
            "txt_ids": first.text.ids,
            "return_dict": False,
        }
        if first.cache is None:
            return self._read(samples, common)
        count = first.latents.shape[1]
        return self.transformer(
            hidden_states=torch.cat([sample.latents for sample in samples]).to(self.dtype),
            img_ids=first.ids[:count],
            kv_cache=_joined([sample.cache for sample in samples]),
            kv_cache_mode="cached",
            **common,
        )[0]

    def _read(self, samples: Sequence[Sample], common: dict[str, Any]) -> Tensor:
        first = samples[0]
        assert first.reference_tokens is not None
        count = first.latents.shape[1]
        tokens = [torch.cat([sample.reference_tokens, sample.latents], dim=1) for sample in samples]
        velocity, cache = self.transformer(
            hidden_states=torch.cat(tokens).to(self.dtype),
            img_ids=torch.cat([first.ids[count:], first.ids[:count]]),
            kv_cache_mode="extract",
            num_ref_tokens=first.reference_tokens.shape[1],
            **common,
        )
        for place, sample in enumerate(samples):
            sample.cache = _part(cache, place)
        return velocity


def _part(cache: Any, place: int) -> Any:
    """Return the part of a shared cache that belongs to one sample."""

    def value(number: int, kind: str) -> Tensor:
        return getattr(_layers(cache)[number], kind)[place : place + 1].clone()

    return _mapped(cache, value)


def _joined(caches: list[Any]) -> Any:
    """Join the caches of several samples for one pass."""
    if len(caches) == 1:
        return caches[0]
    layers = [_layers(cache) for cache in caches]

    def value(number: int, kind: str) -> Tensor:
        return torch.cat([getattr(of[number], kind) for of in layers])

    return _mapped(caches[0], value)


def _layers(cache: Any) -> list[Any]:
    return [*cache.double_block_caches, *cache.single_block_caches]


def _mapped(like: Any, value: Callable[[int, str], Tensor]) -> Any:
    made = type(like)(len(like.double_block_caches), len(like.single_block_caches))
    made.num_ref_tokens = like.num_ref_tokens
    for number, layer in enumerate(_layers(made)):
        layer.store(value(number, "k_ref"), value(number, "v_ref"))
    return made
