from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models.recommending.popularity import KEPT, REFRESH_EVERY, Popularity


@given(st.lists(st.sampled_from("abcdefgh"), max_size=90), st.sets(st.sampled_from("abcdefgh")))
def test_the_first_hundred_additions_count_at_once(added: list[str], exclude: set[str]) -> None:
    popularity = Popularity()
    for item_id in added:
        popularity.add(item_id)
        popularity.top(1)
    expected = sorted(Counter(added).items(), key=lambda counted: (-counted[1], counted[0]))
    assert popularity.top(3, exclude) == [place for place in expected if place[0] not in exclude][:3]


def test_ranks_lag_by_a_hundredth_of_the_additions_and_no_more() -> None:
    popularity = Popularity()
    popularity.add("old", 10_000)
    assert popularity.top(1) == [("old", 10_000)]
    popularity.add("new", 90)
    assert popularity.top(2) == [("old", 10_000)] or popularity.top(2)[1] == ("new", 90)
    popularity.add("new", REFRESH_EVERY)
    assert popularity.top(2) == [("old", 10_000), ("new", 90 + REFRESH_EVERY)]


def test_more_can_be_excluded_than_is_kept_sorted() -> None:
    popularity = Popularity()
    items = [f"{n:05}" for n in range(KEPT + 50)]
    for item_id in items:
        popularity.add(item_id)
    assert [item_id for item_id, _ in popularity.top(3, set(items[: KEPT + 10]))] == items[KEPT + 10 : KEPT + 13]


def test_nothing_counted_lists_nothing() -> None:
    assert Popularity().top(5) == []
