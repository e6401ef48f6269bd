"""schemathesis over our own OpenAPI, in process: whatever it thinks of, the server never makes a mistake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, seed, settings

from fluxwerk.server import app as application
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.state import ServerState
from fluxwerk.testing.face_to_face import Blank

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'fluxwerk[test]'")

# Some of schemathesis's own strategies throw dice that Hypothesis would rather throw itself.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")

KEY = {"x-key": "a-key"}
EXAMPLES = 12


def operations() -> Iterator[object]:
    app = application.build(ServerState(Accounts(), lambda: 0.0, engine="blank"), Blank())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for found in schema.get_all_operations():
        # News go on for an hour, and a test in process waits for their end.
        if found.ok().path != "/v1/events":
            yield found.ok()


@pytest.mark.parametrize("operation", list(operations()), ids=lambda operation: operation.label)
def test_no_request_of_the_openapi_is_answered_by_a_5xx(operation):
    """No request that the openapi allows or forbids is answered by a 5xx."""
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]

    for mode in modes:

        @seed(1)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            answer = case.call(headers=KEY)
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            if answer.headers.get("content-type", [""])[0].startswith("application/json"):
                answer.json()

        try:
            send()
        except schemathesis.errors.InvalidSchema:
            raise
        except Exception as nothing:
            if type(nothing).__name__ != "Unsatisfiable":
                raise
