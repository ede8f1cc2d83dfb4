from __future__ import annotations

from tests.system.soak import growth_per_h, tenths


def test_short_and_long_series_have_medians() -> None:
    assert tenths([]) == []
    assert tenths([3.0, 1.0]) == [3.0, 1.0]
    assert tenths([float(n) for n in range(100)]) == [4.5 + 10 * n for n in range(10)]


def test_growth_is_that_of_the_last_two_thirds() -> None:
    assert growth_per_h([]) == growth_per_h([1.0]) == 0.0
    assert growth_per_h([0.0, 500.0] * 20 + [700.0] * 100) == 0.0
    assert growth_per_h([float(n) for n in range(90)]) == 360.0
