"""Asks a server all questions, and our own server the same, so that differences are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from fluxwerk.catalog import prices
from fluxwerk.catalog.rows import Model
from fluxwerk.conform.account import ACCOUNT, PATHS
from fluxwerk.conform.asker import SIDE, Asker, CapReachedError
from fluxwerk.conform.check import ConformCheck, Observed
from fluxwerk.conform.images import IMAGES, MONEY
from fluxwerk.conform.links import LIMITS, LINKS, WEBHOOKS
from fluxwerk.conform.polls import POLLS
from fluxwerk.conform.refusals import REFUSALS
from fluxwerk.errors import FluxwerkError
from fluxwerk.protocol import trust
from fluxwerk.types import Json

GROUPS = (ACCOUNT, PATHS, REFUSALS, POLLS, IMAGES, MONEY, LINKS, WEBHOOKS, LIMITS)


class Mark(StrEnum):
    """How an answer stands to what is documented."""

    FITS = "as documented"
    DEVIATES = "deviates"
    OBSERVED = "observed"  # nobody documents it
    SKIPPED = "skipped"
    FAILED = "not answered"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The answer to one question; `ours` is that of our own server, where it was asked."""

    check: ConformCheck
    mark: Mark
    value: Json = None
    ours: Json = None
    is_compared: bool = False

    @property
    def differs(self) -> bool:
        """Whether our server answers otherwise, where servers should answer alike."""
        asked = self.mark not in (Mark.SKIPPED, Mark.FAILED)
        return asked and self.is_compared and not self.check.varies and self.value != self.ours


def select(groups: Iterable[str] = ()) -> list[ConformCheck]:
    """Choose the questions of these groups, or of all."""
    wanted = set(groups)
    return [check for group in GROUPS if not wanted or group.group in wanted for check in group.found]


def most_images(checks: Sequence[ConformCheck], slots: int) -> int:
    """Say how many images the questions buy at most; those about a usual image share one."""
    return sum(_images(check, slots) for check in checks) + any(check.shared for check in checks)


def estimate(checks: Sequence[ConformCheck], model: Model) -> Decimal:
    """Estimate what the questions cost at most, in credits."""
    return most_images(checks, model.slots) * prices.estimate(model, SIDE, SIDE)


def run(
    checks: Iterable[ConformCheck], asker: Asker, on_result: Callable[[CheckResult], None] = lambda _: None
) -> list[CheckResult]:
    """Ask every question, one after the other; one that fails stops no other."""
    results: list[CheckResult] = []
    for check in checks:
        result = _ask(check, asker)
        results.append(result)
        on_result(result)
    return results


def compare(results: Iterable[CheckResult], ours: Iterable[CheckResult]) -> list[CheckResult]:
    """Put the answers of our own server beside those of another."""
    known = {result.check.name: result for result in ours if result.mark is not Mark.SKIPPED}
    return [
        CheckResult(result.check, result.mark, result.value, known[result.check.name].value, is_compared=True)
        if result.check.name in known
        else result
        for result in results
    ]


def _images(check: ConformCheck, slots: int) -> int:
    """Say how many images a question buys; that about limits fills every slot, and one more."""
    return slots + 1 if check.images and check.group == LIMITS.group else check.images


def _ask(check: ConformCheck, asker: Asker) -> CheckResult:
    if check.needs and not getattr(asker, check.needs):
        return CheckResult(check, Mark.SKIPPED, f"needs --{check.needs.replace('_', '-')}")
    try:
        asker.afford(_images(check, asker.model.slots))
        observed = check.ask(asker)
    except CapReachedError as capped:
        return CheckResult(check, Mark.SKIPPED, str(capped))
    except (FluxwerkError, ValueError, KeyError, IndexError, TypeError) as failure:
        # What a strange server answers must not end the questions.
        return CheckResult(check, Mark.FAILED, trust.quote(f"{type(failure).__name__}: {trust.redact(str(failure))}"))
    return CheckResult(check, _mark(observed), observed.value)


def _mark(observed: Observed) -> Mark:
    if observed.fits is None:
        return Mark.OBSERVED
    return Mark.FITS if observed.fits else Mark.DEVIATES
