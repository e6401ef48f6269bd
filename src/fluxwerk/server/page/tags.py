"""Tags: a few words by which a person finds images again."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from fluxwerk.server import schema
from fluxwerk.server.errors import invalid

# Letters of any script, digits, and what stands within a word; commas and bars stand between tags.
Tag = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[\w][\w .-]{0,39}$")]
MOST_TAGS = 16


class TagList(BaseModel):
    """The tags of one task."""

    tags: Annotated[list[Tag], Field(max_length=MOST_TAGS)]


def read(body: bytes) -> tuple[str, ...]:
    """Read tags, each once and in their order; raises `ServerError`."""
    try:
        given = TagList.model_validate(schema.parse(body))
    except schema.InvalidFieldsError as wrong:
        raise invalid(wrong.detail) from None
    except ValidationError as fault:
        raise invalid(schema.entries(fault)) from None
    return tuple(dict.fromkeys(given.tags))
