"""Sums over a few of many items, beside what plain dictionaries say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.items.sparse_sums import SparseSums, side_by_side

N_ROWS = 7
users_entries = st.lists(
    st.lists(st.tuples(st.integers(1, N_ROWS - 1), st.integers(1, 8), st.integers(0, 1)), max_size=12), max_size=5
)


@given(st.lists(users_entries, min_size=1, max_size=3), st.integers(1, 8), st.booleans())
def test_the_greatest_sums_of_each_user_are_kept(
    calls: list[list[list[tuple[int, int, int]]]], most: int, in_parts: bool
) -> None:
    room = SparseSums()  # the same one again and again: nothing may be left in it
    for users in calls:
        entries = np.array([entry for of_user in users for entry in of_user], np.int64).reshape(-1, 3)
        bounds = np.cumsum([0, *map(len, users)])
        parts = entries[:, 2] if in_parts else None
        rows, sums = room.best(most, N_ROWS, bounds, entries[:, 0], entries[:, 1].astype(np.float32), parts)
        assert rows.shape[0] == len(users)
        assert sums.shape == (*rows.shape, 2 if in_parts else 1)
        assert rows.shape[1] <= most
        for user, of_user in enumerate(users):
            expected: dict[int, list[float]] = {}
            for row, value, part in of_user:
                expected.setdefault(row, [0.0] * sums.shape[2])[part if in_parts else 0] += value
            found = {
                row: of for row, of in zip(rows[user].tolist(), sums[user].tolist(), strict=True) if row or any(of)
            }
            assert found == {row: expected[row] for row in found}
            greatest = sorted(map(sum, expected.values()), reverse=True)[:most]
            assert sorted(map(sum, found.values()), reverse=True) == pytest.approx(greatest)


def test_values_are_laid_side_by_side_and_filled_up_with_nothing() -> None:
    values = np.array([[1.0, 0.5], [2.0, 0.0], [3.0, 1.0]], np.float32)
    rows, laid = side_by_side(np.array([0, 2, 2, 3]), np.array([3, 4, 1]), values)
    assert rows.tolist() == [[3, 4], [0, 0], [1, 0]]
    assert laid.tolist() == [[[1.0, 0.5], [2.0, 0.0]], [[0.0, 0.0]] * 2, [[3.0, 1.0], [0.0, 0.0]]]
    assert side_by_side(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros((0, 1), np.float32))[0].shape == (0, 0)
