"""Whether a candidate may serve: not worse than the model that does, on what neither has learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainer.data.histories import Floats, Ints
from trainer.evaluation.trials import Report

USER_TRIALS = 20
"""All trials of a user weigh at most as much as this many trials. On MovieTweetings' newest slice
(8,477 trials of 3,235 users, 120 of one) 20 leaves the standard error as it is; 1, a plain mean of users, makes it half
as large again, so that worse candidates would pass."""


@dataclass(frozen=True)
class Verdict:
    """A decision, and why, for a person."""

    passed: bool
    reason: str


def gate(candidate: Report, serving: Report | None, tolerance: float, users: Ints) -> Verdict:
    """Compare MRR@20 over the same trials, where items that a model does not know count as missed.

    MRR, for it is finer than a hit-rate on few trials. A candidate may fall short by `tolerance` of the serving
    model's MRR, or by one standard error of the paired difference if that is more: within it nobody can tell
    which is better, and then the one that has seen newer data is. A first model passes if it is finite.

    `users` (trials) names each trial's user: one machine may have made most of the newest events, and what serves its
    loop best must not be chosen for everybody. Where no user has more than USER_TRIALS, all trials weigh the same.
    """
    if not math.isfinite(candidate.log_likelihood) and candidate.trials > candidate.unknown:
        return Verdict(False, f"the candidate's log likelihood is {candidate.log_likelihood}")
    if serving is None:
        return Verdict(True, "no model serves yet")
    if serving.trials != candidate.trials:
        raise ValueError(f"{candidate.trials} trials cannot be compared with {serving.trials}")
    if not candidate.trials:
        return Verdict(True, "nothing happened since the serving model was made that could tell them apart")
    own, its = candidate.reciprocal_ranks(), serving.reciprocal_ranks()
    weights, n_users = trial_weights(users)
    own_mrr, its_mrr = float(weights @ own), float(weights @ its)
    difference = own - its
    error = float(np.linalg.norm(weights * (difference - weights @ difference)))
    allowed = max(tolerance * its_mrr, error)
    said = (
        f"MRR@20 {own_mrr:.4f} where the serving model has {its_mrr:.4f},"
        f" {allowed:.4f} less allowed, on {len(own)} trials of {n_users} users"
    )
    return Verdict(own_mrr >= its_mrr - allowed, said)


def trial_weights(users: Ints) -> tuple[Floats, int]:
    """Weigh each trial (trials,), all together 1, so that no user weighs more than USER_TRIALS -> weights, users."""
    distinct, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    weights = (np.minimum(counts, USER_TRIALS) / counts)[places]
    return weights / weights.sum(), len(distinct)
