"""FLUX.2 [klein] KV: references are read in the first step and remembered for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Tensor, torch
from fluxwerk.engines.local.sample import Sample


class KleinKV(Flux2):
    """Weights that were trained for it; plain klein weights would paint something else this way."""

    def predict(self, drafts: Sequence[Sample]) -> Tensor:
        """Run the first step with the references and keep what was seen, the later ones with what was kept."""
        first = drafts[0]
        if first.beside is None:
            return super().predict(drafts)
        common = {
            "timestep": self.times(drafts),
            "guidance": None,
            "encoder_hidden_states": torch.cat([draft.text.embeds for draft in drafts]),
            "txt_ids": first.text.ids,
            "return_dict": False,
        }
        if first.cache is None:
            return self._read(drafts, common)
        count = first.latents.shape[1]
        return self.transformer(
            hidden_states=torch.cat([draft.latents for draft in drafts]).to(self.transformer.dtype),
            img_ids=first.ids[:count],
            kv_cache=_joined([draft.cache for draft in drafts]),
            kv_cache_mode="cached",
            **common,
        )[0]

    def _read(self, drafts: Sequence[Sample], common: dict[str, Any]) -> Tensor:
        first = drafts[0]
        assert first.beside is not None
        count = first.latents.shape[1]
        seen = [torch.cat([draft.beside, draft.latents], dim=1) for draft in drafts]
        velocity, cache = self.transformer(
            hidden_states=torch.cat(seen).to(self.transformer.dtype),
            img_ids=torch.cat([first.ids[count:], first.ids[:count]]),
            kv_cache_mode="extract",
            num_ref_tokens=first.beside.shape[1],
            **common,
        )
        for place, draft in enumerate(drafts):
            draft.cache = _part(cache, place)
        return velocity


def _part(cache: Any, place: int) -> Any:
    """Cut the share of one draft out of what was kept for all."""

    def value(number: int, kind: str) -> Tensor:
        return getattr(_layers(cache)[number], kind)[place : place + 1].clone()

    return _mapped(cache, value)


def _joined(caches: list[Any]) -> Any:
    """Put the shares of several drafts together for one pass."""
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
