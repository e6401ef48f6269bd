"""One question to a server: its group, its price, and what is observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fluxwerk.conform.asker import Asker
from fluxwerk.types import Json


@dataclass(frozen=True, slots=True)
class Observed:
    """What a server answered: a short value without secrets, and whether that is as documented.

    `fits` of `None` says that nobody documents it.
    """

    value: Json
    fits: bool | None = None


Ask = Callable[[Asker], Observed]


@dataclass(frozen=True, slots=True)
class ConformCheck:
    """One question.

    `images` is how many images it may buy, `shared` says that it looks at the one usual image of all questions,
    `varies` that the answer differs from server to server by nature, and `needs` names an option without which it is
    left out.
    """

    name: str
    group: str
    question: str
    ask: Ask
    images: int = 0
    shared: bool = False
    varies: bool = False
    needs: str = ""


class Checks:
    """The questions of one group, in the order in which they are asked."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.found: list[ConformCheck] = []

    def add(
        self, *, images: int = 0, shared: bool = False, varies: bool = False, needs: str = ""
    ) -> Callable[[Ask], Ask]:
        """Make a function a check; its docstring is the question."""

        def register(ask: Ask) -> Ask:
            name = getattr(ask, "__name__", "").replace("_", "-")
            question = (ask.__doc__ or "").strip()
            self.found.append(ConformCheck(name, self.group, question, ask, images, shared, varies, needs))
            return ask

        return register
