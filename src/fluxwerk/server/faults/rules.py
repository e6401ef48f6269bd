"""Fault rules: when the server misbehaves on purpose, and how, from a TOML file or from a test.

The decision is pure: it depends on counts and a seeded random number. `effects` says how an answer is spoilt,
`connection` does so over real HTTP, and face to face it is a loss.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fluxwerk.errors import Fault, InvalidUsageError

Place: TypeAlias = Literal["submit", "poll", "download", "webhook"]
ANSWERS = frozenset({"status", "page", "redirect", "garble", "type", "reset", "cut", "stall", "drip", "delay"})
# What each place can suffer.
DEEDS: dict[str, frozenset[str]] = {
    "submit": ANSWERS | {"moderate", "fail", "stick"},
    "poll": ANSWERS | {"word", "forget", "expire"},
    "download": ANSWERS | {"truncate", "expire"},
    "webhook": frozenset({"drop", "delay", "duplicate", "forge", "garble"}),
}
# What spoils the answer itself, and not the task's ending or its link.
ANSWER_DEEDS = ANSWERS | {"word", "forget", "truncate"}
# These replace the answer, so that a submit need not be accepted before they strike.
INSTEAD = frozenset({"status", "page", "redirect", "garble", "reset"})
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class FaultRule(BaseModel):
    """One kind of trouble: `on` which place, what to `do`, how, and when; without a "when" it strikes always.

    How: `status` (500) and `retry_after` (seconds, or an HTTP date) of an error or a page; `accepted`, whether the
    submit counts all the same; `seconds` of a delay; `share` of the body that is sent before a cut, a stall or a
    truncation; `rate` of a drip in bytes a second; `to` of a redirect; `word` of an unknown status; `stage` and
    `reasons` of moderation.
    When: `nth` occasions, the `first` n, `after` n, `every` n, by `chance`, where the `prompt`
    matches a regular expression or the `model` a pattern such as flux-2-*; counted `per_task` or over all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: Place
    do: str
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    retry_after: int | str | None = None
    accepted: bool = False
    seconds: Annotated[float, Field(ge=0)] = 1.0
    share: Share = 0.5
    rate: Annotated[float, Field(gt=0)] = 10.0
    to: str = "http://127.0.0.1:9/elsewhere"
    word: str = "Dreaming"
    stage: Literal["request", "content"] = "request"
    reasons: tuple[str, ...] = ()
    nth: Count | tuple[Count, ...] | None = None
    first: Count | None = None
    after: Annotated[int, Field(ge=0)] = 0
    every: Count | None = None
    chance: Share = 1.0
    prompt: str = ""
    model: str = "*"
    per_task: bool = False

    @model_validator(mode="after")
    def _fits(self) -> FaultRule:
        if self.do not in DEEDS[self.on]:
            raise ValueError(f"on {self.on} the server can {', '.join(sorted(DEEDS[self.on]))}, not {self.do!r}")
        try:
            re.compile(self.prompt)
        except re.error as fault:
            raise ValueError(f"prompt is not a regular expression: {fault}") from None
        return self

    @property
    def strikes_first(self) -> bool:
        """Whether the answer is spoilt before anything is accepted."""
        return self.do in INSTEAD and not self.accepted


@dataclass(frozen=True, slots=True)
class Occasion:
    """A moment at which trouble may strike: the place, and what is known of the task."""

    on: str
    prompt: str = ""
    model: str = ""
    task: str = ""


def concerns(rule: FaultRule, occasion: Occasion) -> bool:
    """Whether a rule is about such an occasion at all; only these are counted."""
    named = fnmatchcase(occasion.model, rule.model)
    return rule.on == occasion.on and named and re.search(rule.prompt, occasion.prompt) is not None


def is_due(rule: FaultRule, number: int, roll: float) -> bool:
    """Whether a rule strikes at its `number`th occasion (from 1), given a roll from 0 to 1."""
    nths = (rule.nth,) if isinstance(rule.nth, int) else rule.nth
    past = number - rule.after
    return (
        past >= 1
        and (nths is None or past in nths)
        and (rule.first is None or past <= rule.first)
        and (rule.every is None or past % rule.every == 0)
        and roll < rule.chance
    )


class Faults:
    """Rules with their counts and their die; the first rule that is due strikes."""

    # Whether there may be rules later, so that connections have to be breakable already.
    may_change = False

    def __init__(self, rules: Iterable[FaultRule] = (), seed: int = 0) -> None:
        self.rules = tuple(rules)
        self._die = random.Random(seed)  # noqa: S311  (the same trouble in every run)
        self._counts: Counter[tuple[int, str]] = Counter()

    def reset(self) -> None:
        """Count from the start again."""
        self._counts.clear()

    def meet(self, occasion: Occasion) -> FaultRule | None:
        """Count an occasion and return the rule that strikes, if one does."""
        struck: FaultRule | None = None
        for place, rule in enumerate(self.rules):
            if not concerns(rule, occasion):
                continue
            counted = (place, occasion.task if rule.per_task else "")
            self._counts[counted] += 1
            roll = self._die.random()
            if struck is None and is_due(rule, self._counts[counted], roll):
                struck = rule
        return struck


def scripted(rules: Faults | Iterable[FaultRule]) -> Faults:
    """Take rules as a test has them, or a whole script."""
    return rules if isinstance(rules, Faults) else Faults(rules)


def load(path: str | PathLike[str]) -> Faults:
    """Read a script: `seed` and any number of [[rule]] tables; raises `InvalidUsageError` with every fault in it."""
    import tomllib  # noqa: PLC0415

    try:
        given: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        script = _Script.model_validate(given)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise InvalidUsageError(f"The trouble file {path} cannot be read: {fault}.") from None
    except ValidationError as fault:
        faults = [Fault(".".join(str(part) for part in error["loc"]), None, error["msg"]) for error in fault.errors()]
        raise InvalidUsageError(f"The trouble file {path} is wrong:", faults=faults) from None
    return Faults(script.rule, script.seed)


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    rule: tuple[FaultRule, ...] = ()
