"""FLUX.3 Image [klein]: distilled in sixteen steps, or base with two passes a step, and up to ten references."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from PIL import Image

from fluxwerk.engines.local.flux2 import Flux2
from fluxwerk.engines.local.foreign import Pipeline, Tensor, torch
from fluxwerk.engines.local.sample import Sample
from fluxwerk.engines.local.text import Text

_BLOCKS = "diffusers.modular_pipelines.flux3"
# The recipe of the stock text encoder: layers laid side by side, and a window in multiples of this many tokens.
TEXT_LAYERS = (4, 8, 12, 16, 20, 24, 28, 32)
WINDOW = 80


class Flux3(Flux2):
    """The weights of FLUX.3 Image [klein], with the functions of the stock pipeline's blocks."""

    def encode(self, prompt: str) -> Text:
        """Run Qwen3-VL over a prompt padded to a multiple of 80 tokens."""
        step: Any = import_module(f"{_BLOCKS}.encoders").Flux3TextEncoderStep
        embeds = step._get_qwen3_vl_prompt_embeds(  # noqa: SLF001  (stock embeddings)
            text_encoder=self.pipe.text_encoder,
            tokenizer=self.pipe.tokenizer,
            prompt=prompt,
            device=torch.device(self.text_device),
            max_sequence_length=self.row.kind.prompt_tokens,
            pad_multiple=WINDOW,
            hidden_states_layers=TEXT_LAYERS,
        )
        places: Any = import_module(f"{_BLOCKS}.before_denoise").Flux3TextRoPEInputsStep
        return Text(embeds, places._prepare_text_ids(embeds))  # noqa: SLF001

    def noise(self, pipe: Pipeline, size: tuple[int, int], text: Text, generator: Any) -> tuple[Tensor, Tensor]:
        """Return the initial noise, drawn in float32 as the stock pipeline does, and its positions."""
        draw: Any = import_module("diffusers.utils.torch_utils").randn_tensor
        grid = pipe.vae_scale_factor * 2
        shape = (1, self.transformer.config.in_channels, size[1] // grid, size[0] // grid)
        noise = draw(shape, generator=generator, device=torch.device(self.device), dtype=torch.float32)
        return noise.to(text.embeds.dtype).flatten(2).transpose(1, 2), self._ids(shape[2], shape[3])[None]

    def add_references(self, pipe: Pipeline, sample: Sample, images: Sequence[Image.Image], generator: Any) -> None:  # noqa: ARG002  (the encoder's mode is taken, so nothing is drawn)
        """Encode the references: one is kept whole, several are cropped to the grid and to a megapixel each."""
        encoding: Any = import_module(f"{_BLOCKS}.encoders").Flux3VaeEncoderStep
        vae = pipe.vae
        mean = vae.bn.running_mean.view(1, -1, 1, 1).to(self.device, vae.dtype)
        deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        tokens: list[Tensor] = []
        for number, image in enumerate(images, 1):
            pixels = pipe.image_processor.preprocess(image, resize_mode="fill" if len(images) == 1 else "crop")[0]
            latents = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode()
            latents = (encoding._patchify_latents(latents) - mean) / deviation.to(self.device, vae.dtype)  # noqa: SLF001
            tokens.append(latents.flatten(2).transpose(1, 2))
            sample.ids = torch.cat([sample.ids, self._ids(latents.shape[-2], latents.shape[-1], -number)])
            sample.shape = (*sample.shape, (pixels.shape[-1], pixels.shape[-2]))
        sample.reference_tokens = torch.cat(tokens, dim=1).to(sample.text.embeds.dtype)

    def run(self, samples: Sequence[Sample], texts: Sequence[Text]) -> Tensor:
        """Run the transformer once; distilled weights are also told the noise level that the step leads to."""
        first, dtype = samples[0], self.dtype
        count = first.latents.shape[1]
        more: dict[str, Any] = {}
        if first.reference_tokens is not None:
            more["image_cond_hidden_states"] = torch.cat([sample.reference_tokens for sample in samples]).to(dtype)
            more["image_cond_ids"] = first.ids[count:]
        if self.transformer.config.flow_map:
            more["target_timestep"] = torch.stack([_next(sample) for sample in samples]).to(dtype) / 1000
        return self.transformer(
            hidden_states=torch.cat([sample.latents for sample in samples]).to(dtype),
            encoder_hidden_states=torch.cat([text.embeds for text in texts]),
            timestep=self.times(samples).to(dtype),
            img_ids=first.ids[:count],
            txt_ids=texts[0].ids,
            return_dict=False,
            **more,
        )[0]

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Undo the packing of two by two latents."""
        decoding: Any = import_module(f"{_BLOCKS}.decoders").Flux3DecodeStep
        return decoding._unpatchify_latents(patches)  # noqa: SLF001

    def shift(self, tokens: int, steps: int) -> float:  # noqa: ARG002  (FLUX.3's is in the scheduler's configuration)
        """Return nothing to shift by: the scheduler has a fixed shift."""
        return 0.0

    def _ids(self, height: int, width: int, level: int = 0) -> Tensor:
        prepare: Any = import_module(f"{_BLOCKS}.before_denoise")._prepare_image_ids  # noqa: SLF001
        step: Any = import_module(f"{_BLOCKS}.before_denoise").Flux3PrepareLatentsStep()
        return prepare(height, width, step.image_rope_scale, l_coord=level).to(self.device)


def _next(sample: Sample) -> Tensor:
    times = sample.timesteps
    return times[sample.step + 1] if sample.step + 1 < len(times) else torch.zeros_like(times[0])
