"""What a flow asks of the state, by itself or together with other flows that ask the same at this moment.

A database in a network answers fifty questions of a kind in little more time than one.  So a flow yields its frequent
questions instead of asking them, and who drives it may gather those of several flows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from fluxwerk.types import Call, Flow

T = TypeVar("T")
# Answers questions of a kind in their order; `None` says that each has to be asked alone.
Together: TypeAlias = Callable[[Sequence[Any]], Sequence[T] | None]


class Inquiry(NamedTuple, Generic[T]):
    """A question that `alone` answers by itself, and `together` with others, each known by what it is `about`.

    What is asked alone runs beside all other flows, so it may take its time.
    """

    alone: Callable[[], T]
    together: Together[T] | None = None
    about: Any = None


# A flow that calls other servers, and asks the state.
AskingFlow: TypeAlias = Generator[Call | Inquiry[Any], Any, T]


def ask(alone: Callable[[], T], together: Together[T] | None = None, about: object = None) -> AskingFlow[T]:
    """Ask the state; raises what the answer raises."""
    answer: T = yield Inquiry(alone, together, about)
    return answer


def answered(flow: AskingFlow[T], step: Call | Inquiry[Any] | None = None) -> Flow[T]:
    """Turn a flow into one that asks each question alone and makes its calls; `step` is what it has yielded last."""
    with closing(flow):
        try:
            step = next(flow) if step is None else step
            while True:
                try:
                    reply = step.alone() if isinstance(step, Inquiry) else (yield step)
                except Exception as error:  # noqa: BLE001  (whatever it is, it is the flow's)
                    step = flow.throw(error)
                else:
                    step = flow.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result


def result_of(flow: AskingFlow[T]) -> T:
    """Run a flow that makes no calls."""
    try:
        next(answered(flow))
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("A flow that only asks the state has called another server.")
