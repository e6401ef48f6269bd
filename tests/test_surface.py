"""What users may rely on: the public names, and how little it costs to import them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from importlib.resources import files

import pytest

import fluxwerk
from fluxwerk import errors, testing

HEAVY = (
    "httpx2",
    "httpcore2",
    "asyncio",
    "PIL",
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "ssl",
    "torch",
    "rich",
    "click",
)


def loaded_by(statement: str) -> set[str]:
    """Which heavy modules a fresh interpreter has after a statement."""
    program = f"{statement}\nimport sys\nprint(*set({HEAVY!r}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=True, text=True, timeout=30)
    return set(done.stdout.split())


def test_the_public_names_are_sorted_and_there():
    assert fluxwerk.__all__ == sorted(fluxwerk.__all__)
    assert len(fluxwerk.__all__) == len(set(fluxwerk.__all__))
    for name in fluxwerk.__all__:
        assert getattr(fluxwerk, name) is not None


def test_every_public_name_is_at_home_in_the_package_and_has_a_docstring():
    for name in fluxwerk.__all__:
        value = getattr(fluxwerk, name)
        assert value.__module__.startswith("fluxwerk.")
        assert value.__doc__


def test_every_error_is_public():
    tree = {
        name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.FluxwerkError)
    }
    assert tree | {"Fault"} <= set(fluxwerk.__all__)


def test_everything_public_can_be_listed_and_nothing_else_be_asked_for():
    assert set(fluxwerk.__all__) <= set(dir(fluxwerk))
    for module in (fluxwerk, testing):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing


def test_the_testing_names_are_there():
    assert testing.__all__ == sorted(testing.__all__)
    for name in testing.__all__:
        assert getattr(testing, name).__doc__


@pytest.mark.parametrize("name", ["loopback", "FaceToFace"])
def test_the_testing_names_say_which_extra_they_need(name):
    program = f"import sys; sys.modules['pydantic'] = None; from fluxwerk.testing import {name}"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "(pydantic): pip install 'fluxwerk[server]'" in done.stderr


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import fluxwerk") == set()
    assert (
        loaded_by("from fluxwerk import Task, Request, FluxwerkError, list_models, get_model, estimate; list_models()")
        == set()
    )


def test_verifying_a_webhook_loads_nothing_heavy():
    assert loaded_by("from fluxwerk.webhook import Receiver, verify; Receiver('secret')") == set()


def test_a_blocking_client_needs_no_server_and_no_pillow():
    assert not loaded_by("import fluxwerk; fluxwerk.Client('key')") & {"fastapi", "pydantic", "uvicorn", "PIL", "rich"}


def test_the_pytest_plugin_weighs_nothing_on_suites_that_do_not_use_it():
    assert not loaded_by("import fluxwerk.testing.plugin") & {"fastapi", "pydantic", "httpx2", "PIL", "uvicorn"}


def test_the_package_is_typed():
    assert files("fluxwerk").joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "fluxwerk.client.client",
        "fluxwerk.client.wakeup",
        "fluxwerk.webhook.receiver",
        "fluxwerk.webhook.inbox",
        "fluxwerk.server.app",
        "fluxwerk.server.router",
        "fluxwerk.testing.face_to_face",
    ],
)
def test_every_public_method_says_what_it_does(name):
    module = importlib.import_module(name)
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == name and not kind.__name__.startswith("_"):
            for method, value in vars(kind).items():
                assert method.startswith("_") or not inspect.isfunction(value) or value.__doc__, (kind, method)


def test_both_clients_speak_the_same_words():
    def words(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(value).parameters) for name, value in methods if not name.startswith("_")}

    assert words(fluxwerk.Client) == words(fluxwerk.AsyncClient)
