"""A gallery shows itself in a notebook, live, and is an ordinary iterator elsewhere."""

from __future__ import annotations

import asyncio
import sys
import types

import pytest

from fluxwerk import Client, Gallery, ModerationError
from fluxwerk.client.many import Result
from fluxwerk.server.faults.rules import FaultRule
from fluxwerk.testing import FaceToFace

SIZE = {"width": 256, "height": 256}


class Notebook:
    """What IPython does with what it displays."""

    def __init__(self):
        self.shown = []

    def display(self, html, *, display_id):
        self.shown.append(html)
        return self

    def update(self, html):
        self.shown.append(html)


@pytest.fixture
def notebook(monkeypatch):
    notebook = Notebook()
    module = types.ModuleType("IPython.display")
    module.display, module.HTML = notebook.display, str
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return notebook


@pytest.fixture
def client(fluxwerk_server):
    with Client() as opened:
        yield opened


def test_many_images_are_shown_as_they_are_made(client, notebook):
    gallery = client.generate_many(["a fox", "an owl", "a <b>bear</b>"], **SIZE)
    gallery._ipython_display_()
    assert len(notebook.shown) == 4
    assert [text.count("<figure") for text in notebook.shown] == [0, 1, 2, 3]
    assert "3 of 3 images, 9 credits on paper" in notebook.shown[-1]
    assert "&lt;b&gt;bear&lt;/b&gt;" in notebook.shown[-1]
    assert len(gallery.images) == len(gallery.results) == 3


def test_a_failure_is_shown_in_its_place(notebook):
    client = FaceToFace(trouble=[FaultRule(on="submit", do="moderate", prompt="owl")])
    gallery = Gallery(client.generate_many(["a fox", "an owl"], **SIZE), count=2)
    gallery._ipython_display_()
    assert "1 of 2 images, 1 failed" in notebook.shown[-1]
    assert [type(result.error) for result in gallery.results if result.error] == [ModerationError]


def test_a_loop_keeps_nothing(client):
    gallery = client.generate_many((f"fox {number}" for number in range(3)), **SIZE)
    assert sum(result.image is not None for result in gallery) == 3
    assert gallery.results == []


def test_images_that_are_there_are_shown(client, notebook):
    images = [client.generate("a fox", **SIZE), client.generate("an owl", **SIZE)]
    gallery = Gallery(images)
    gallery._ipython_display_()
    assert gallery.images == images
    assert "2 of 2 images" in gallery._repr_html_()


def test_an_interrupt_stops_the_making(notebook):
    closed = []

    def results():
        try:
            yield Result("a fox")
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        Gallery(results())._ipython_display_()
    assert closed


def test_the_blocking_client_works_inside_a_running_loop(client):
    async def cell():
        return client.generate("a fox", **SIZE), [one.image for one in client.generate_many(["an owl"], **SIZE)]

    one, many = asyncio.run(cell())
    assert one.data
    assert many[0].data
