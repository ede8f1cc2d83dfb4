from __future__ import annotations

import numpy as np
import pytest

from models.terms.evicted import PARTS, parts


def test_the_features_say_that_an_item_was_had_and_how_often() -> None:
    features = parts(np.array([[1, 2, 0], [3, 0, 0]]), np.array([[1, 8, 0], [2, 0, 0]]))
    assert features.dtype == np.float32
    assert features[:, :, 0].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert features[0, :, 1].tolist() == pytest.approx([0, 3, 0])
    assert features[1, :, 1].tolist() == pytest.approx([1, 0, 0])


def test_nothing_is_said_of_an_item_without_a_row() -> None:
    assert not parts(np.array([[0]]), np.array([[8.0]])).any()
    assert parts(np.zeros((2, 0), np.int64), np.zeros((2, 0))).shape == (2, 0, PARTS)
