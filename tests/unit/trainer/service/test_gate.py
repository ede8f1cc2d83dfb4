import math

import numpy as np
import pytest

from trainer.evaluation.trials import UNKNOWN, Report
from trainer.service.gate import USER_TRIALS, Verdict, gate


def report(ranks: list[int], log_likelihood: float = -2.0) -> Report:
    return Report(np.array(ranks * 50), log_likelihood)


def compared(candidate: Report, serving: Report | None, tolerance: float) -> Verdict:
    """Compare, with a user a trial."""
    return gate(candidate, serving, tolerance, np.arange(candidate.trials))


def test_a_first_model_passes_if_it_is_finite() -> None:
    assert compared(report([30, UNKNOWN]), None, 0.02).passed
    for broken in (math.nan, -math.inf):
        verdict = compared(report([30, 40], broken), None, 0.02)
        assert not verdict.passed
        assert str(broken) in verdict.reason


def test_a_worse_candidate_is_refused_with_the_figures() -> None:
    verdict = compared(report([5, 10]), report([1, 2]), 0.02)
    assert not verdict.passed
    assert "0.1500" in verdict.reason
    assert "0.7500" in verdict.reason
    assert "100 trials" in verdict.reason


def test_equal_and_better_ones_pass() -> None:
    assert compared(report([3, 4]), report([3, 4]), 0.0).passed
    assert compared(report([2, 4]), report([3, 4]), 0.0).passed


def test_a_difference_that_chance_explains_passes() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 40, 400)
    shuffled = np.where(rng.random(400) < 0.5, ranks, rng.permutation(ranks))
    assert compared(Report(shuffled, -2.0), Report(ranks, -2.0), 0.0).passed


def test_what_a_model_does_not_know_counts_as_missed() -> None:
    assert not compared(report([1, UNKNOWN]), report([1, 1]), 0.02).passed


def test_nothing_to_compare_by_passes() -> None:
    assert compared(report([]), report([]), 0.02).passed


def test_other_trials_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="trials"):
        compared(report([1]), report([1, 2]), 0.02)


def test_a_machine_with_half_of_the_trials_does_not_decide() -> None:
    users = np.concatenate((np.zeros(1000, np.int64), np.arange(1, 1001)))
    of_machine = np.arange(2000) < 1000
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 21, 2000)
    better_for_it = Report(np.where(of_machine, 1, ranks + 10), -2.0)
    worse_for_it = Report(np.where(of_machine, UNKNOWN, np.maximum(ranks - 3, 1)), -2.0)
    serving = Report(ranks, -2.0)
    assert better_for_it.reciprocal_ranks().mean() > serving.reciprocal_ranks().mean(), "what it would decide"
    assert worse_for_it.reciprocal_ranks().mean() < serving.reciprocal_ranks().mean() * 0.9
    assert not gate(better_for_it, serving, 0.02, users).passed
    assert gate(worse_for_it, serving, 0.02, users).passed
    assert "2000 trials of 1001 users" in gate(serving, serving, 0.02, users).reason


def test_users_of_few_trials_weigh_as_trials_do() -> None:
    rng = np.random.default_rng(1)
    own, its = Report(rng.integers(1, 40, 600), -2.0), Report(rng.integers(1, 40, 600), -2.0)
    users = np.repeat(np.arange(600 // USER_TRIALS), USER_TRIALS)
    one_a_trial, some_each = compared(own, its, 0.02), gate(own, its, 0.02, users)
    assert one_a_trial.passed == some_each.passed
    assert one_a_trial.reason.split(" trials")[0] == some_each.reason.split(" trials")[0]


def test_a_machine_alone_is_compared_by_its_own_trials() -> None:
    users = np.zeros(100, np.int64)
    assert not gate(report([5, 10]), report([1, 2]), 0.02, users).passed
    assert gate(report([1, 2]), report([5, 10]), 0.02, users).passed
