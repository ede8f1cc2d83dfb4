"""Whether a candidate may serve: not worse than the model that does, on what neither has learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainer.evaluation import Report


@dataclass(frozen=True)
class Verdict:
    """A decision, and why, for a person."""

    passed: bool
    reason: str


def gate(candidate: Report, serving: Report | None, tolerance: float) -> Verdict:
    """Compare MRR@20 over the same trials, where items that a model does not know count as missed.

    MRR, for it is finer than a hit-rate on few trials. A candidate may fall short by `tolerance` of the serving
    model's MRR, or by one standard error of the paired difference if that is more: within it nobody can tell
    which is better, and then the one that has seen newer data is. A first model passes if it is finite.
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
    error = float(np.std(own - its) / math.sqrt(len(own)))
    allowed = max(tolerance * float(its.mean()), error)
    said = (
        f"MRR@20 {own.mean():.4f} where the serving model has {its.mean():.4f},"
        f" {allowed:.4f} less allowed, on {len(own)} trials"
    )
    return Verdict(bool(own.mean() >= its.mean() - allowed), said)
