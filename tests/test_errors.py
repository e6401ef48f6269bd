"""The tree of errors: what each says, what it carries, and that it survives the way to another process."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import shlex

import pytest

from fluxwerk import errors
from fluxwerk.errors import (
    APIStatusError,
    Fault,
    FluxwerkError,
    InvalidUsageError,
    ModerationError,
    TaskFailedError,
    TaskTimeoutError,
)
from fluxwerk.types import Task

TASK = Task("abc", "https://api.bfl.ai/v1/get_result?id=abc", "flux-2-pro")
FAULT = Fault("width", 5, "must be at least 64")
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FluxwerkError)]


def tree():
    """Read the tree that is drawn in the docstring: each name with the one it hangs on."""
    drawn, above = {}, ["FluxwerkError"]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}([│ ]*)[├└]── (\w+)", line)
        if found:
            depth = len(found[1]) // 4 + 1
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1]
    return drawn


def example(kind):
    """One error of that kind with everything it can carry."""
    if issubclass(kind, InvalidUsageError):
        return kind("That does not fit:", faults=[FAULT])
    if issubclass(kind, APIStatusError):
        return kind("The service answered 429.", status=429, faults=[FAULT], retry_after=3.5, task=TASK)
    if issubclass(kind, ModerationError):
        return kind("Stopped.", stage="content", reasons=["Violence"], details={"a": [1]}, task=TASK)
    if issubclass(kind, TaskFailedError):
        return kind("It failed.", details={"a": [1]}, task=TASK)
    return kind("So it is.", task=TASK)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    assert tree() == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS if kind is not FluxwerkError}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("carry", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_survives_the_way_to_another_process(kind, carry):
    error = example(kind)

    arrived = carry(error)

    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_made_of_nothing_but_a_message(kind):
    assert str(kind("So it is.")) == "So it is."
    assert kind().task is None


def test_a_misuse_names_every_fault_on_a_line_of_its_own():
    error = InvalidUsageError("Wrong:", faults=[FAULT, Fault("steps", None, "is required", "a whole number")])

    assert str(error) == "Wrong:\n  width = 5: must be at least 64\n  steps: is required (a whole number)"


def test_one_fault_without_a_message_is_the_message():
    assert str(InvalidUsageError(faults=[FAULT])) == "width = 5: must be at least 64"
    assert str(InvalidUsageError(faults=[FAULT, FAULT])).splitlines() == ["  width = 5: must be at least 64"] * 2


def test_a_fault_does_not_repeat_a_novel():
    assert len(str(Fault("prompt", "x" * 10_000, "is too long"))) < 100


def test_a_short_value_is_shown_whole():
    assert errors.shorten("x" * 58) == repr("x" * 58)
    assert errors.shorten("x" * 59) == "'" + "x" * 56 + "..."


def test_a_timeout_tells_how_to_collect_what_was_paid_for():
    assert str(TaskTimeoutError("Too late.", task=TASK)) == (
        "Too late. The task may still finish: collect it later with `fluxwerk wait abc --polling-url "
        "'https://api.bfl.ai/v1/get_result?id=abc'`."
    )


def test_a_timeout_before_any_task_promises_nothing():
    assert str(TaskTimeoutError("Too late.")) == "Too late."


def test_what_the_service_named_cannot_leave_its_place_in_the_command():
    evil = Task("a; rm -rf ~", "https://api.bfl.ai/'; rm -rf ~ #")

    command = errors.collect_later(evil).split("`")[1]

    assert shlex.split(command) == ["fluxwerk", "wait", evil.id, "--polling-url", evil.polling_url]
