"""Signed links: they open one image, in one type, until one moment."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.server.state import links

SECRET = b"s" * 32
FOLDERS = st.binary(min_size=24, max_size=24).map(bytes.hex)
WHERE = links.path("ab" * 24, "png")


def link(until: float = 1000.0) -> dict[str, str]:
    return dict(parse_qsl(links.sign(SECRET, WHERE, "image/png", until), strict_parsing=True))


@given(FOLDERS, st.sampled_from(["png", "jpeg", "webp"]))
def test_a_path_leads_back_to_its_folder(folder, suffix):
    assert links.folder(links.path(folder, suffix)) == folder


@pytest.mark.parametrize(
    "path", ["", "/", "/results", "/results/a/b/c/other.png", "/results/a/b/sample.png", "/v1/a/b/c/sample.png"]
)
def test_other_paths_lead_nowhere(path):
    assert links.folder(path) is None


@given(st.floats(1, 4e9))
def test_a_link_opens_until_its_moment_and_not_from_then_on(until):
    query = link(until)
    assert links.verify(SECRET, WHERE, query, int(until) - 0.01) is None
    assert links.verify(SECRET, WHERE, query, int(until)) == "the link has expired"


@given(st.sampled_from(["se", "sp", "sv", "sr", "rsct", "sig"]), st.text())
def test_a_link_with_any_other_claim_stays_shut(name, value):
    query = link()
    if query[name] != value:
        assert links.verify(SECRET, WHERE, {**query, name: value}, 0.0) == "the signature does not match"


@given(st.text())
def test_a_link_to_another_path_stays_shut(where):
    if where != WHERE:
        assert links.verify(SECRET, where, link(), 0.0) == "the signature does not match"


def test_a_link_of_another_server_or_without_claims_stays_shut():
    assert links.verify(b"other", WHERE, link(), 0.0)
    assert links.verify(SECRET, WHERE, {}, 0.0)
