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
    "fields",
    [
        {"half_lives_s": (0.0,)},
        {"successor_half_life_s": -1.0},
        {"terms": ("trends",)},
        {"terms": ("neighbours",)},
        {"terms": ("moods",)},
        {"terms": ([],)},
        {"terms": ("repeats", "repeats")},
        {"half_lives_s": (60.0,), "terms": ("repeats", "trends")},
    ],
)
def test_impossible_terms_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"half-lives|nothing to read|unknown|dense ones come first"):
        HRNNConfig(5, **fields)


def test_the_switches_of_earlier_releases_are_terms() -> None:
    before: dict[str, Any] = {"n_items": 5, "half_lives_s": [60.0], "successor_half_life_s": 9.0, "neighbours": True}
    config = HRNNConfig.from_dict({**before, "repeats": True, "earlier": True, "net": True})
    assert config.terms == ("taste", "trends", "successors", "neighbours", "repeats", "evicted")
    assert config.to_dict()["terms"] == list(config.terms)
    assert HRNNConfig.from_dict({"n_items": 5, "net": False, "repeats": True}).terms == ("repeats",)
    for wrong in ({"repeats": 1}, {"neighbours": True}, {"net": None}, {"terms": ["taste"], "repeats": True}):
        with pytest.raises(ValueError, match=r"true or false|nothing to read|unknown keys"):
            HRNNConfig.from_dict({"n_items": 5, **wrong})
