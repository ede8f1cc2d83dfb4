from __future__ import annotations

import math
from typing import Any

import pytest

from models.encoders.hrnn import HRNNConfig


def test_a_config_survives_json() -> None:
    config = HRNNConfig(5, 1, hidden_dimension=3, control_bounds_s=(1.0, 2.0), tied=True)
    assert HRNNConfig.from_dict(config.to_dict()) == config
    assert HRNNConfig.from_dict({"n_items": 5}) == HRNNConfig(5)  # a model of before there were layers has one


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_items": 0},
        {"n_items": "5"},
        {"n_items": True},
        {"n_items": 2**40},
        {"n_items": 5, "cells": 2},
        {"n_items": 5, "layers": 0},
        {"n_items": 5, "layers": 1.0},
        {"n_items": 5, "hidden_dimension": 2.5},
        {"n_items": 5, "control_bounds_s": 60},
        {"n_items": 5, "control_bounds_s": [60, 60]},
        {"n_items": 5, "control_bounds_s": [-1]},
        {"n_items": 5, "control_bounds_s": ["60"]},
        {"n_items": 5, "control_bounds_s": [math.nan]},
        {"n_items": 5, "dropout": 1.0},
        {"n_items": 5, "dropout": "0"},
        {"n_items": 5, "tied": 1},
    ],
)
def test_an_impossible_config_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HRNNConfig.from_dict(fields)


@pytest.mark.parametrize(
    "fields", [{"half_lives_s": (0.0,)}, {"successor_half_life_s": -1.0}, {"repeats": 1}, {"neighbours": True}]
)
def test_signals_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"half-lives|repeats|neighbours are read from what follows"):
        HRNNConfig(5, **fields)
