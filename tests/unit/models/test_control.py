from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.control import level, levels


@pytest.mark.parametrize(
    ("gap_s", "expected"), [(0, 0), (59.999, 0), (60, 1), (3599, 1), (3600, 2), (86400, 3), (1e9, 3)]
)
def test_a_bound_is_reached_when_the_gap_equals_it(gap_s: float, expected: int) -> None:
    assert level(gap_s) == expected


@given(st.lists(st.floats(0, 1e9)))
def test_arrays_agree_with_single_gaps(gaps: list[float]) -> None:
    assert levels(np.array(gaps, np.float64)).tolist() == [level(gap) for gap in gaps]
