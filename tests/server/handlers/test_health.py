"""What a load balancer and an orchestrator ask the server."""

from __future__ import annotations

from pathlib import Path

from fluxwerk.engines import FullAbilities, Health
from fluxwerk.server.state.accounts import Accounts
from fluxwerk.server.state.condition import PROBE_EVERY
from fluxwerk.server.state.dialect import StateFile
from fluxwerk.server.state.store import Store
from fluxwerk.storage import Folder
from fluxwerk.testing import FaceToFace
from support.asking import ask, face, json_of, post
from support.images import png, text

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


def checks(of: FaceToFace) -> tuple[int, dict[str, str]]:
    answer = ask(of, "GET", "/readyz", key=None)
    return answer.status, json_of(answer)["checks"]


def test_a_server_is_not_ready_while_its_storage_takes_nothing(tmp_path: Path):
    """Nothing has to fail before that is known, and a task without images does not hide it."""
    folder = tmp_path / "files"
    of = face(accounts=Accounts(store=Store(StateFile(), Folder(folder))))
    of._stop_working()
    folder.write_text("no folder any more")
    assert checks(of) == (503, {**OK, "storage": "unavailable"})
    assert post(of, {"prompt": "x"}).status == 200
    assert checks(of) == (503, {**OK, "storage": "unavailable"})
    assert json_of(ask(of, "GET", "/healthz", key=None))["status"] == "storage_unavailable"
    folder.unlink()
    of.clock.sleep(PROBE_EVERY)
    assert checks(of) == (200, OK)
    assert ask(of, "GET", "/healthz", key=None).status == 200


def test_a_storage_that_took_the_images_of_a_submit_is_ready_at_once(tmp_path: Path):
    folder = tmp_path / "files"
    of = face(accounts=Accounts(store=Store(StateFile(), Folder(folder))))
    folder.write_text("no folder any more")
    edit = {"prompt": "x", "input_image": text(png(64, 64))}
    refused = post(of, edit)
    assert (refused.status, json_of(refused)["error"]) == (503, "storage_unavailable")
    assert "storage cannot be written" in json_of(refused)["message"]
    assert checks(of) == (503, {**OK, "storage": "unavailable"})
    folder.unlink()
    of._stop_working()
    assert post(of, edit).status == 200
    assert checks(of) == (200, OK)


def test_a_server_is_not_ready_while_its_database_takes_nothing():
    of = face()
    database = of.state.store.database
    assert isinstance(database, StateFile)
    database._connection.execute("pragma query_only = on")
    refused = post(of, {"prompt": "x"})
    assert "database cannot be written" in json_of(refused)["message"]
    assert checks(of) == (503, {**OK, "database": "unavailable"})
    database._connection.execute("pragma query_only = off")
    assert checks(of) == (200, OK)


def test_a_server_is_not_ready_once_its_database_is_gone():
    of = face()
    of.state.store.database.close()
    assert checks(of) == (503, {**OK, "database": "unavailable"})
