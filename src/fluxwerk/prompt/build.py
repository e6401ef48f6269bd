"""A prompt from its parts, in the order that FLUX weighs them: the subject first, the style last."""

from __future__ import annotations

from collections.abc import Mapping

from fluxwerk.errors import Fault, InvalidUsageError
from fluxwerk.prompt.colours import HEX, name_of


def build(
    subject: str,
    *,
    action: str = "",
    context: str = "",
    light: str = "",
    camera: str = "",
    style: str = "",
    text: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> str:
    """Write a prompt: `build("a red fox", action="standing in deep snow", light="low evening sun from the left")`.

    `text` is what the image shows with how it looks, as in `{"OPEN": "bold red neon above the door"}`; `colours` has
    the code of each object, as in `{"the door": "#C0392B"}`.  Raises `InvalidUsageError` with every fault.
    """
    faults = list(_faults(subject, text or {}, colours or {}))
    if faults:
        raise InvalidUsageError("The prompt cannot be built:", faults=faults)
    shown = [f'the text "{words}" in {look.strip()}' for words, look in (text or {}).items()]
    tinted = [f"{thing} is color {name_of(code)} {code.upper()}" for thing, code in (colours or {}).items()]
    sentences = [
        " ".join(part.strip(" .") for part in (subject, action, context) if part.strip()),
        *shown,
        *tinted,
        *(part.strip(" .") for part in (light, camera, style) if part.strip()),
    ]
    return " ".join(f"{one[0].upper()}{one[1:]}." for one in sentences)


def _faults(subject: str, text: Mapping[str, str], colours: Mapping[str, str]) -> list[Fault]:
    faults = [] if subject.strip(" .") else [Fault("subject", subject, "must say what the picture shows")]
    for words, look in text.items():
        if not words.strip() or '"' in words:
            faults.append(Fault("text", words, "must be the words to show, without quotes"))
        if not look.strip():
            faults.append(
                Fault(f"text[{words!r}]", look, 'must say how it looks, such as "bold sans-serif at the top"')
            )
    for thing, code in colours.items():
        if not HEX.fullmatch(code):
            faults.append(Fault(f"colours[{thing!r}]", code, "must have the form #RRGGBB"))
        if not thing.strip():
            faults.append(Fault("colours", thing, 'must name an object, such as "the door"'))
    return faults
