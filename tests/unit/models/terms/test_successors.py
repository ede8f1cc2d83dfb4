from __future__ import annotations

import numpy as np
import pytest

from models.encoders.hrnn import HRNNConfig
from models.items.signal_table import GAIN
from models.terms.successors import PARTS, SHARE_GAIN, Successors

SUCCESSORS = Successors(HRNNConfig(1, successor_half_life_s=60.0))


def test_the_features_are_the_weights_and_their_shares() -> None:
    weights = np.log1p(GAIN * np.array([[[3.0, 1.0], [1.0, 0.0], [0.0, 0.0]]], np.float32))
    features = SUCCESSORS.complete(weights)
    assert features.shape == (1, 3, PARTS)
    assert (features[:, :, :2] == weights).all()
    shares = [[0.75, 1.0], [0.25, 0.0], [0.0, 0.0]]
    assert features[0, :, 2:] == pytest.approx(np.log1p(SHARE_GAIN * np.array(shares)), rel=1e-5)
    assert not SUCCESSORS.complete(np.zeros((2, 3, 2), np.float32)).any()
