"""What a load balancer and an orchestrator ask the server."""

from __future__ import annotations

from fluxwerk.engines import FullAbilities, Health
from support.asking import ask, face, json_of

OK = {"accepting": "ok", "database": "ok", "storage": "ok", "workers": "ok"}


class Loading(FullAbilities):
    def health(self) -> Health:
        return Health("loading", serving=False)


def test_a_server_that_renders_is_ready():
    of = face()
    assert json_of(ask(of, "GET", "/readyz", key=None)) == {"status": "ready", "checks": OK}
    assert ask(of, "GET", "/livez", key=None).status == 200


def test_a_server_is_not_ready_while_its_engine_loads():
    of = face(abilities=Loading())
    answer = ask(of, "GET", "/readyz", key=None)
    assert (answer.status, json_of(answer)["checks"]) == (503, {**OK, "workers": "loading"})


def test_a_server_that_closes_is_not_ready_and_lives():
    of = face()
    of.state.close()
    answer = ask(of, "GET", "/readyz", key=None)
    assert (answer.status, json_of(answer)["checks"]) == (503, {**OK, "accepting": "closing"})
    assert ask(of, "GET", "/livez", key=None).status == 200
