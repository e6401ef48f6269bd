"""The pipeline of FLUX.3, which diffusers makes of blocks: from its parts, without the blocks' own downloads."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxwerk.engines.local.foreign import Pipeline, diffusers, transformers

BLOCKS = {
    "Flux3ModularPipeline": "Flux3AutoBlocks",
    "Flux3DistilledModularPipeline": "Flux3DistilledAutoBlocks",
}


@dataclass(frozen=True, slots=True)
class TextProcessor:
    """What the text blocks use of Qwen3-VL's processor, whose other half, for images, needs torchvision."""

    tokenizer: Any

    def apply_chat_template(self, *given: Any, **named: Any) -> Any:
        """Return the prompt as a conversation."""
        return self.tokenizer.apply_chat_template(*given, **named)


def connect(pipeline: str, components: dict[str, Any]) -> Pipeline:
    """Return a pipeline of these components, without the prompt upsampler."""
    blocks = getattr(import_module("diffusers.modular_pipelines.flux3"), BLOCKS[pipeline])()
    blocks.sub_blocks.pop("prompt_upsampler")
    pipe = getattr(diffusers, pipeline)(blocks=blocks)
    pipe.update_components(**components)
    return pipe


def load_folder(folder: Path, pipeline: str, dtype: Any) -> Pipeline:
    """Return the pipeline of a folder; each part is read from its own subfolder, whatever the index names."""
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
    components = {
        "transformer": diffusers.Flux3Transformer2DModel.from_pretrained(str(folder / "transformer"), **options),
        "vae": diffusers.AutoencoderKLFlux2.from_pretrained(str(folder / "vae"), **options),
        "text_encoder": transformers.Qwen3VLForConditionalGeneration.from_pretrained(
            str(folder / "text_encoder"), **options
        ),
        "tokenizer": load_processor(folder / "tokenizer"),
    }
    if (folder / "scheduler").is_dir():
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(str(folder / "scheduler"))
        components["scheduler"] = scheduler
    return connect(pipeline, components)


def load_processor(folder: Path) -> TextProcessor:
    """Return the text half of a processor."""
    return TextProcessor(
        transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    )
