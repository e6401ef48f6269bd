"""A bounded dictionary keeps the newest entries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.bounded import BoundedDict


@given(most=st.integers(1, 5), keys=st.lists(st.integers(0, 9)))
def test_the_entries_that_were_put_last_are_kept(most, keys):
    kept: BoundedDict[int, int] = BoundedDict(most)
    for moment, key in enumerate(keys):
        kept.put(key, moment)
    newest = list(dict.fromkeys(reversed(keys)))[:most]
    assert list(reversed(kept)) == newest


def test_the_dropped_value_is_returned():
    kept: BoundedDict[str, int] = BoundedDict(1)
    assert kept.put("a", 1) is None
    assert kept.put("a", 2) is None
    assert kept.put("b", 3) == 2
    assert dict(kept) == {"b": 3}
