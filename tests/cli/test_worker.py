"""`fluxwerk worker`: which models it may be told to render."""

from __future__ import annotations

import pytest

from fluxwerk.cli.worker import read_models
from fluxwerk.engines import FullAbilities
from fluxwerk.errors import InvalidUsageError, UnknownModelError
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState


class Klein(FullAbilities):
    """An engine of two models."""

    def facts(self, model):
        return {} if model.name in ("flux-2-klein-4b", "flux-2-klein-9b") else None


@pytest.fixture
def state():
    return ServerState(Accounts(), lambda: 0.0, engine="diffusers", abilities=Klein())


def test_a_worker_is_told_its_models_by_any_of_their_names(state):
    assert read_models("flux-2-klein-4b, /v1/flux-2-klein-9b", state) == ["flux-2-klein-4b", "flux-2-klein-9b"]


def test_a_model_that_the_engine_does_not_serve_is_refused_with_those_that_it_serves(state):
    with pytest.raises(InvalidUsageError) as refused:
        read_models("flux-2-klein-4b,flux-2-pro", state)
    assert "names flux-2-pro, which the engine diffusers does not serve" in str(refused.value)
    assert "it serves flux-2-klein-4b, flux-2-klein-9b" in str(refused.value)


def test_a_model_that_does_not_exist_is_refused(state):
    with pytest.raises(UnknownModelError):
        read_models("flux-9", state)
