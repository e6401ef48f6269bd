"""An extension: advice on a prompt for a model, before anything is submitted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from fluxwerk import prompt as prompts
from fluxwerk.errors import UnknownModelError
from fluxwerk.protocol import wire
from fluxwerk.server import schema
from fluxwerk.server.errors import invalid, unfit
from fluxwerk.server.request import ServerRequest
from fluxwerk.server.state.state import LONGEST_PROMPT, ServerState
from fluxwerk.types import Response


class Question(BaseModel):
    """A prompt, the model by name or path, the number of reference images, and options."""

    model: str
    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    images: Annotated[int, Field(ge=0, le=100)] = 0
    options: dict[str, Any] = {}


def advise(_: ServerState, request: ServerRequest) -> Response:
    """Answer with one entry for each piece of advice; `mend` is the text for its place, or null."""
    try:
        asked = Question.model_validate(schema.parse(request.body))
        found = prompts.lint(asked.prompt, asked.model, images=asked.images, options=asked.options)
    except schema.InvalidFieldsError as wrong:
        raise invalid(wrong.detail) from None
    except ValidationError as fault:
        raise invalid(schema.entries(fault)) from None
    except UnknownModelError as fault:
        raise unfit("model", str(fault)) from None
    return Response(200, wire.JSON, wire.dump({"advice": [asdict(one) for one in found]}))
