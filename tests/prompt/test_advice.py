"""Mends are put into a prompt where the advice points, and nowhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fluxwerk.prompt import Advice, mend

TEXTS = st.text(max_size=60)


@st.composite
def prompts_with_advice(draw):
    prompt = draw(TEXTS)
    places = draw(st.lists(st.tuples(st.integers(0, len(prompt)), st.integers(0, len(prompt))), max_size=5))
    advice = [Advice("rule", "…", min(one), max(one), draw(st.none() | TEXTS)) for one in places]
    return prompt, advice


def test_a_mend_takes_the_place_of_what_is_quoted():
    one = Advice("rule", "…", 2, 5, "red")
    assert one.quote("a bad fox") == "bad"
    assert mend("a bad fox", [one]) == "a red fox"


def test_advice_without_a_mend_changes_nothing():
    assert mend("a bad fox", [Advice("rule", "…", 2, 5)]) == "a bad fox"


def test_of_two_mends_that_overlap_the_earlier_one_counts():
    assert mend("abcdef", [Advice("one", "…", 0, 4, "1"), Advice("two", "…", 2, 6, "2")]) == "1ef"


@given(prompts_with_advice())
def test_what_no_mend_touches_stays(case):
    prompt, advice = case
    mended = mend(prompt, advice)
    taken = [one for one in advice if one.mend is not None]
    begin = min((one.start for one in taken), default=len(prompt))
    end = max((one.end for one in taken), default=0)
    assert mended.startswith(prompt[:begin])
    assert mended.endswith(prompt[max(end, begin) :])


@given(prompts_with_advice())
def test_the_order_of_advice_does_not_matter(case):
    prompt, advice = case
    unique = list({(one.start, one.end): one for one in advice}.values())
    assert mend(prompt, unique) == mend(prompt, list(reversed(unique)))
