"""The gate: a candidate must not be worse than the serving model on events that neither has learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainer.data.histories import Floats, Ints
from trainer.evaluation.trials import Report

USER_TRIALS = 20
"""All trials of a user weigh at most as much as this many. On MovieTweetings' newest slice (8,477 trials of 3,235
users, 120 of one) 20 does not change the standard error. 1, a plain mean over users, increases it by half, so that
worse candidates would pass."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, with a readable reason."""

    passed: bool
    reason: str


def gate(candidate: Report, serving: Report | None, tolerance: float, users: Ints) -> Verdict:
    """Compare MRR@20 over the same trials. Items unknown to a model count as missed.

    MRR is finer than a hit-rate on few trials. A candidate may be worse by `tolerance` of the serving model's MRR, or
    by one standard error of the paired difference if that is more: within it the models cannot be distinguished, and
    the one with newer data is preferred. A first model passes if it is finite.

    `users` (trials) has each trial's user. One machine may have made most of the newest events, and its pattern must
    not decide for everybody. If no user has more than USER_TRIALS, all trials weigh the same.
    """
    if not math.isfinite(candidate.log_likelihood) and candidate.trials > candidate.unknown:
        return Verdict(False, f"the candidate's log likelihood is {candidate.log_likelihood}")
    if serving is None:
        return Verdict(True, "no model serves yet")
    if serving.trials != candidate.trials:
        raise ValueError(f"{candidate.trials} trials cannot be compared with {serving.trials}")
    if not candidate.trials:
        return Verdict(True, "there are no events since the serving model to compare on")
    own, its = candidate.reciprocal_ranks(), serving.reciprocal_ranks()
    weights, n_users = trial_weights(users)
    own_mrr, its_mrr = float(weights @ own), float(weights @ its)
    difference = own - its
    error = float(np.linalg.norm(weights * (difference - weights @ difference)))
    allowed = max(tolerance * its_mrr, error)
    reason = (
        f"MRR@20 {own_mrr:.4f}, serving model {its_mrr:.4f},"
        f" {allowed:.4f} less allowed, on {len(own)} trials of {n_users} users"
    )
    return Verdict(own_mrr >= its_mrr - allowed, reason)


def trial_weights(users: Ints) -> tuple[Floats, int]:
    """Return the trials' weights (trials,), whose sum is 1, and the number of users.

    A user weighs at most as much as USER_TRIALS trials.
    """
    distinct, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    weights = (np.minimum(counts, USER_TRIALS) / counts)[places]
    return weights / weights.sum(), len(distinct)
