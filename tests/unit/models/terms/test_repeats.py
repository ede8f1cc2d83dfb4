from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.items.signal_table import GAIN
from models.terms import repeats

histories = st.lists(st.tuples(st.integers(-1, 5), st.floats(0.0, 1e5)), max_size=12)


def plainly(history: list[tuple[int, float]], at: float) -> dict[int, list[float]]:
    """What is said of each item, in loops: item -> parts."""
    said = {}
    for item in {item for item, _ in history if item > 0}:
        places = [place for place, (other, _) in enumerate(history) if other == item]
        last = history[-1][0]
        again = sum(place > 0 and history[place - 1][0] == last > 0 for place in places)
        said[item] = [
            1.0,
            math.log2(len(places)),
            2.0 ** (-max(0.0, at - history[places[-1]][1]) / 3600),
            1 / (len(history) - places[-1]),
            math.log(1 + GAIN * again),
        ]
    return said


@given(st.lists(st.tuples(histories, st.floats(0.0, 2e5)), max_size=6), st.integers(0, 3))
def test_what_is_said_is_what_loops_find(users: list[tuple[list[tuple[int, float]], float]], spare: int) -> None:
    width = max((len(history) for history, _ in users), default=0) + spare
    rows, times = np.full((len(users), width), 3), np.full((len(users), width), 5e4)  # what fills up is not looked at
    for number, (history, _) in enumerate(users):
        for place, (item, time) in enumerate(history):
            rows[number, place], times[number, place] = item, time
    lengths = np.array([len(history) for history, _ in users], np.int64)
    said = repeats.parts(rows, lengths, times, np.array([at for _, at in users]))
    assert said.shape == (len(users), width, repeats.PARTS)
    for number, (history, at) in enumerate(users):
        summed: dict[int, list[float]] = {}
        for place in np.flatnonzero(said[number].any(1)).tolist():
            item = int(rows[number, place])
            assert item not in summed, "an item is spoken of at one place only"
            summed[item] = said[number, place].tolist()
        expected = plainly(history, at)
        assert summed.keys() == expected.keys()
        for item, values in expected.items():
            assert summed[item] == pytest.approx(values, rel=1e-5)


def test_what_came_after_the_last_item_before_is_expected_again() -> None:
    rows, times = np.array([[1, 2, 3, 1, 2, 1]]), np.zeros((1, 6))
    said = repeats.parts(rows, np.array([6]), times, np.zeros(1))
    assert said[0, 4].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5, math.log(1 + 2 * GAIN)])
    assert said[0, 2, 4] == 0.0
    assert not said[0, [0, 1, 3]].any()
