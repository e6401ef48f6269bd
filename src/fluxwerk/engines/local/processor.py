"""Conversations with images as tensors: Qwen's processor without its half for videos, which needs torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fluxwerk.engines.local.foreign import transformers

# What the chat template writes where an image stands; it is repeated for each token of the image.
IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105  (no password)
_OURS = ("tokenize", "return_dict", "return_tensors")


@dataclass(frozen=True, slots=True)
class SeeingProcessor:
    """A tokenizer and an image processor, with the methods of the stock processor that upsampling uses."""

    tokenizer: Any
    image_processor: Any

    def apply_chat_template(self, messages: list[dict[str, Any]], **named: Any) -> Any:
        """Return the inputs of the model for messages whose contents are lists of texts and images."""
        named = {key: value for key, value in named.items() if key not in _OURS}
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **named)
        images = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        seen: Any = self.image_processor(images=images, return_tensors="pt") if images else {}
        given = self.tokenizer(self._widened(text, seen), return_tensors="pt")
        places = given["input_ids"] == self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return transformers.BatchFeature({**given, **seen, "mm_token_type_ids": places.long()})

    def decode(self, tokens: Any, **named: Any) -> str:
        """Return the text of tokens."""
        return str(self.tokenizer.decode(tokens, **named))

    def _widened(self, text: str, seen: Any) -> str:
        """Return the text with as many image tokens as each image has patches, of which several make a token."""
        merged = self.image_processor.merge_size**2
        counts = [int(grid.prod()) // merged for grid in seen["image_grid_thw"]] if seen else []
        first, *others = text.split(IMAGE_TOKEN)
        pairs = zip(counts, others, strict=True)
        return "".join(chain([first], (IMAGE_TOKEN * count + other for count, other in pairs)))


def load_seeing(folder: Path) -> SeeingProcessor:
    """Return the processor of a folder."""
    options = {"local_files_only": True, "trust_remote_code": False}
    return SeeingProcessor(
        transformers.AutoTokenizer.from_pretrained(str(folder), **options),
        transformers.AutoImageProcessor.from_pretrained(str(folder), backend="pil", **options),
    )
