import math

import numpy as np
import pytest

from trainer.evaluation import UNKNOWN, Report
from trainer.gate import gate


def report(ranks: list[int], log_likelihood: float = -2.0) -> Report:
    return Report(np.array(ranks * 50), log_likelihood)


def test_a_first_model_passes_if_it_is_finite() -> None:
    assert gate(report([30, UNKNOWN]), None, 0.02).passed
    for broken in (math.nan, -math.inf):
        verdict = gate(report([30, 40], broken), None, 0.02)
        assert not verdict.passed
        assert str(broken) in verdict.reason


def test_a_worse_candidate_is_refused_with_the_figures() -> None:
    verdict = gate(report([5, 10]), report([1, 2]), 0.02)
    assert not verdict.passed
    assert "0.1500" in verdict.reason
    assert "0.7500" in verdict.reason
    assert "100 trials" in verdict.reason


def test_equal_and_better_ones_pass() -> None:
    assert gate(report([3, 4]), report([3, 4]), 0.0).passed
    assert gate(report([2, 4]), report([3, 4]), 0.0).passed


def test_a_difference_that_chance_explains_passes() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 40, 400)
    shuffled = np.where(rng.random(400) < 0.5, ranks, rng.permutation(ranks))
    assert gate(Report(shuffled, -2.0), Report(ranks, -2.0), 0.0).passed


def test_what_a_model_does_not_know_counts_as_missed() -> None:
    assert not gate(report([1, UNKNOWN]), report([1, 1]), 0.02).passed


def test_nothing_to_compare_by_passes() -> None:
    assert gate(report([]), report([]), 0.02).passed


def test_other_trials_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="trials"):
        gate(report([1]), report([1, 2]), 0.02)
