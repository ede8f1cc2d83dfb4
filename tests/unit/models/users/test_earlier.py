from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from models.users import earlier

items = st.lists(st.sampled_from("abcdefgh"), max_size=40)


@given(items, st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9))
def test_what_is_known_does_not_depend_on_how_many_are_taken_in_at_once(
    fallen: list[str], cuts: list[int], most: int
) -> None:
    whole = earlier.fold({}, fallen, most)
    known: dict[str, int] = {}
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(fallen)], strict=True):
        before = dict(known)
        grown = earlier.fold(known, fallen[begin:end], most)
        assert known == before
        known = grown
    assert list(known.items()) == list(whole.items())


@given(items)
def test_all_is_counted_while_there_is_room(fallen: list[str]) -> None:
    known = earlier.fold({}, fallen, 8)
    assert known == Counter(fallen)
    assert list(known) == sorted(known, key=lambda item: len(fallen) - 1 - fallen[::-1].index(item))


def test_what_fell_out_longest_ago_is_forgotten_with_its_count() -> None:
    assert list(earlier.fold({}, "aabbca", 2).items()) == [("c", 1), ("a", 1)]
    assert list(earlier.fold({}, "aabac", 2).items()) == [("a", 3), ("c", 1)]
