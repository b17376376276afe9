"""Which of several claims counts, when something is gone, and what stays when nobody tells it any more."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapers.base import Evidence, Rank
from scrapers.merge import MISSED_FOR_S, MISSES, Key, Sighting, verdicts

DAY = 86_400.0
NOW = 1_000 * DAY
_CONFIDENCE = {Rank.OBSERVED: 0.98, Rank.API: 0.95, Rank.DOCS: 0.85, Rank.COMMUNITY: 0.5, Rank.MAP: 0.3}


def saw(value: Any, rank: Rank, source: str = "", *, field: str = "free", age: float = 0.0, **more: Any) -> Sighting:
    """A source of a class that said so `age` days ago."""
    seen = NOW - age * DAY
    claim = Evidence("groq", "m", field, value, source=source or rank.name, rank=rank, confidence=_CONFIDENCE[rank])
    history = {name: more.pop(name) for name in ("current", "missed", "missed_since_s") if name in more}
    return Sighting(replace(claim, seen_at_s=seen, **more), seen, **history)


def verdict(*sightings: Sighting, now: float = NOW, field: str = "free") -> Any:
    """The value that counts; `...` when there is no verdict."""
    found = verdicts(sightings, now).get(Key("groq", "m", field))
    return ... if found is None else found.value


@pytest.mark.parametrize(("higher", "lower"), list(zip(list(Rank)[1:], list(Rank)[:-1], strict=True)))
def test_a_class_beats_the_one_below(higher: Rank, lower: Rank) -> None:
    """While both are fresh, one source of a class counts more than several of the next lower one that agree."""
    crowd = [saw("none", lower, f"list {number}") for number in range(6)]
    assert verdict(saw("quota", higher), *crowd) == "quota"


def test_newer_beats_older_within_a_class() -> None:
    """Of two pages of one class the one that was read later counts."""
    older = saw(14_400.0, Rank.DOCS, "a", field="limit.requests_per_day", age=9)
    newer = saw(2_400.0, Rank.DOCS, "b", field="limit.requests_per_day", age=1)
    assert verdict(older, newer, field="limit.requests_per_day") == 2_400.0


def test_lists_that_agree_add_up() -> None:
    """Two lists of people together beat a third one that is a little newer."""
    lists = [saw("quota", Rank.COMMUNITY, "a", age=3), saw("quota", Rank.COMMUNITY, "b", age=3)]
    assert verdict(*lists, saw("none", Rank.COMMUNITY, "c")) == "quota"


def test_kinds_of_free_agree() -> None:
    """A quota and a budget both say that it costs nothing; the stronger one names the kind."""
    found = verdicts(
        [saw("budget", Rank.DOCS), saw("quota", Rank.COMMUNITY), saw("none", Rank.COMMUNITY, "other")], NOW
    )[Key("groq", "m", "free")]
    assert (found.value, found.with_it, found.against) == ("budget", ("COMMUNITY",), (("other", "none"),))


def test_a_claim_fades() -> None:
    """A page that was not seen for half a year no longer beats lists of today."""
    assert verdict(saw("quota", Rank.DOCS, age=180), saw("none", Rank.COMMUNITY)) == "none"


def test_what_a_list_says_of_its_own_date_counts() -> None:
    """A list that was last edited a year ago is a year old, however fresh its copy is."""
    old = saw("quota", Rank.COMMUNITY, "a", dated="1971-08")  # now is September 1972
    assert verdict(old, saw("none", Rank.COMMUNITY, "b", age=20)) == "none"


def test_gone_only_after_the_hysteresis() -> None:
    """A model that its list no longer names is there until it was missed often and long enough, and then it is gone."""

    def missed(times: int, for_s: float) -> Any:
        listed = saw(True, Rank.API, field="exists", age=3, missed=times, missed_since_s=NOW - for_s)
        return verdict(listed, field="exists")

    assert missed(MISSES - 1, 10 * DAY) is True
    assert missed(MISSES, MISSED_FOR_S - 1) is True
    assert missed(MISSES, MISSED_FOR_S) is False


def test_a_free_claim_that_left_is_dropped() -> None:
    """What a page no longer says of a model does not count once it is gone."""
    gone = saw("quota", Rank.DOCS, age=3, missed=MISSES, missed_since_s=NOW - 2 * DAY)
    assert verdict(gone) is ...
    assert verdict(gone, saw("none", Rank.COMMUNITY)) == "none"


def test_an_announced_end_needs_no_misses() -> None:
    """A model whose list gave its last day is gone on that day, and a promotion ends with its own."""
    leaving = saw(True, Rank.API, field="exists", until_s=NOW + DAY)
    assert verdict(leaving, field="exists") is True
    assert verdict(leaving, now=NOW + 2 * DAY, field="exists") is False
    promo = saw("promo", Rank.DOCS, age=2, until_s=NOW - DAY)
    assert verdict(promo) is ...
    assert verdict(promo, now=NOW - 1.5 * DAY) == "promo"
    # A list that still names a model after the day has the last word.
    assert verdict(saw(True, Rank.API, field="exists", until_s=NOW - DAY), field="exists") is True


def test_a_number_that_is_no_longer_told_stays() -> None:
    """A source that stopped to publish a number says unknown; the last known one counts, with its age."""
    field = "limit.requests_per_day"
    before = saw(500.0, Rank.DOCS, field=field, age=100, current=False)
    found = verdicts([before, saw(None, Rank.DOCS, field=field)], NOW)[Key("groq", "m", field)]
    assert (found.value, round(found.age_s / DAY)) == (500.0, 100)
    assert verdict(saw(None, Rank.DOCS, field=field), field=field) is None


def test_a_row_that_left_keeps_its_number() -> None:
    """A limit is kept when its row disappears: the model's own claims say whether it is still there."""
    field = "limit.requests_per_day"
    row = saw(500.0, Rank.DOCS, field=field, age=9, missed=9, missed_since_s=NOW - 8 * DAY)
    assert verdict(row, field=field) == 500.0


def test_capabilities_are_a_union() -> None:
    """One source that sees a capability is enough, unless a source of a higher class denies it."""
    field = "capability.tools"
    yes, no = saw(True, Rank.COMMUNITY, field=field), saw(False, Rank.COMMUNITY, "other", field=field)
    assert verdict(yes, no, field=field) is True
    assert verdict(yes, saw(False, Rank.API, field=field), field=field) is False
    assert verdict(saw(True, Rank.API, field=field), saw(False, Rank.DOCS, field=field), field=field) is True


def test_a_conflict_is_shown() -> None:
    """Whoever says otherwise stands in the verdict."""
    found = verdicts([saw("quota", Rank.DOCS), saw("none", Rank.COMMUNITY)], NOW)[Key("groq", "m", "free")]
    assert found.against == (("COMMUNITY", "none"),)
    assert found.by.source == "DOCS"


def test_what_repeats_another_source_adds_nothing() -> None:
    """A catalogue that is made from a provider's own list does not confirm it, and counts where it stands alone."""
    copy = saw(True, Rank.COMMUNITY, "catalogue", field="exists")
    found = verdicts(
        [saw(True, Rank.API, field="exists", age=90), copy], NOW, derived={"catalogue": frozenset({"groq"})}
    )[Key("groq", "m", "exists")]
    assert found.with_it == ()
    assert verdicts([copy], NOW, derived={"catalogue": frozenset({"groq"})})[Key("groq", "m", "exists")].value is True


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Rank)),
            st.sampled_from(["quota", "none", "trial", "budget", None]),
            st.sampled_from("abcd"),
            st.floats(0, 200),
        ),
        max_size=8,
    ),
    st.randoms(),
)
def test_the_order_of_the_evidence_does_not_matter(
    told: list[tuple[Rank, Any, str, float]], shuffle: random.Random
) -> None:
    """The verdict is a function of the evidence, in whatever order it comes."""
    unique = {(name, rank): saw(value, rank, f"{rank.name}{name}", age=age) for rank, value, name, age in told}
    sightings = list(unique.values())
    before = verdicts(sightings, NOW)
    shuffle.shuffle(sightings)
    assert verdicts(sightings, NOW) == before
