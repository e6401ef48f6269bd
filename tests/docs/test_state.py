"""The page on the state names the stages and the moves that the source has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from fluxwerk.server.state import fleet, queue, statements, tasks

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "state.md").read_text(encoding="utf-8")
MOVES = [line.split("|")[1:4] for line in PAGE.partition("| move |")[2].partition("\n\n")[0].splitlines()[2:]]


def test_the_page_names_every_stage():
    source = "".join(inspect.getsource(module) for module in (fleet, queue, statements, tasks))
    compared = re.findall(r"stage (?:=|<>|in) (\(?'[\w', ]+)", source)
    stages = {name for text in compared for name in re.findall(r"'(\w+)'", text)}
    assert stages == {"waiting", "queued", "running", "ended", "stuck"}
    told = re.search(r"^A task has a stage: (.+)$", PAGE, re.MULTILINE)[1]
    assert [name for name in stages if name not in told] == []


def test_every_move_of_the_page_is_one_of_the_source():
    named = {name.strip() for move, _, _ in MOVES for name in move.split(",")}
    known = {*dir(tasks.Tasks), *dir(queue.TaskQueue), *dir(fleet.FleetStore)}
    assert named <= known
    assert {"accept", "release", "vacate", "finish", "end", "forget"} <= named
