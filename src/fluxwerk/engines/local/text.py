"""Prompts into embeddings: each prompt once, and through no more layers than are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fluxwerk.engines.local.foreign import torch
from fluxwerk.engines.local.sample import Text

# A prompt takes 7.5 MiB with klein 4B and 15 MiB with dev.
REMEMBERED = 32
# The layers whose states diffusers takes, by the class of the text encoder; the last is the last that is needed.
LAYERS = {"Qwen3ForCausalLM": 27, "Mistral3ForConditionalGeneration": 30}
PROBE = "A red fox on a wooden bench, 35 mm, golden hour: 1 + 1 = 2."


class Encoder:
    """Encodes prompts, and remembers the latest; one thread at a time may use it, since tokenizers cannot be shared."""

    def __init__(self, encode: Callable[[str], Text], remembered: int = REMEMBERED) -> None:
        self._encode = encode
        self._remembered = remembered
        self._known: OrderedDict[str, Text] = OrderedDict()
        self.runs = 0

    def __call__(self, prompt: str) -> Text:
        """Return the encoded prompt."""
        if prompt not in self._known:
            self.runs += 1
            self._known[prompt] = self._encode(prompt)
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]


def shorten(pipe: Any, encode: Callable[[str], Text]) -> bool:
    """Cut the text encoder behind the last layer in use, if a probe shows that not one bit changes; say whether.

    Saves a third of its work: 27 of the 36 layers of Qwen3 and no head.
    """
    whole = pipe.text_encoder
    last = LAYERS.get(type(whole).__name__)
    if last is None:
        return False
    before = encode(PROBE).embeds
    body = whole.model
    stack = getattr(body, "language_model", body)
    layers, norm, count = stack.layers, stack.norm, stack.config.num_hidden_layers
    if len(layers) <= last:
        return False
    # The states of the last layer come out through the final norm, which must therefore do nothing.
    stack.layers, stack.norm, stack.config.num_hidden_layers = layers[:last], torch.nn.Identity(), last
    pipe.text_encoder = body
    if _is_same(before, encode):
        return True
    stack.layers, stack.norm, stack.config.num_hidden_layers = layers, norm, count
    pipe.text_encoder = whole
    return False


def _is_same(before: Any, encode: Callable[[str], Text]) -> bool:
    try:
        return bool(torch.equal(before, encode(PROBE).embeds))
    except (AttributeError, IndexError, TypeError, KeyError, ValueError):
        # Another release of transformers may shape its encoders otherwise; then the whole one stays.
        return False
