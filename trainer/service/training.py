"""Fit a candidate and compare it with the serving model. This file does not use Kafka."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from models.weights import ServingModel
from trainer.data.histories import Histories
from trainer.evaluation.trials import evaluate, evaluate_popularity, trials
from trainer.fitting.course import NothingToLearn
from trainer.fitting.fit import Fitted, finish, fit, newest_slice
from trainer.service.gate import Verdict, gate
from trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A fitted model, the gate's verdict, and figures on the newest slice."""

    fitted: Fitted  # has also learned the newest slice if it passed
    verdict: Verdict
    figures: dict[str, dict[str, float]]  # of "candidate", "serving", "popularity"

    def metrics(self) -> dict[str, float]:
        """Return the figures for a manifest: the candidate's, and popularity's with the prefix `popularity_`."""
        figures = {f"popularity_{name}": figure for name, figure in self.figures["popularity"].items()}
        figures |= self.figures["candidate"]
        figures |= {"loss": self.fitted.loss, "epochs": float(self.fitted.epochs), "seconds": self.fitted.seconds}
        return {name: figure for name, figure in figures.items() if math.isfinite(figure)}


def train(
    histories: Histories,
    serving: ServingModel | None,
    settings: TrainerSettings,
    stopping: Callable[[], bool] = lambda: False,
) -> Candidate:
    """Fit a model and compare it with the serving one on the newest slice; if it passes, it learns that slice, too.

    Raises NothingToLearn. When `stopping` returns true, the result may be incomplete and must not be published.
    """
    log.info("training on %d events of %d users", histories.n_events, histories.n_users)
    if not histories.n_events:
        raise NothingToLearn("there are no sessions yet")
    watermark = serving.manifest.data_watermark if serving else -math.inf
    cutoff = newest_slice(histories, settings.fitting.valid_fraction, watermark)
    update = serving is not None and settings.fitting.training_mode == "update"
    fitted = fit(histories, cutoff, settings.fitting, (serving, watermark) if serving and update else None, stopping)
    asked = trials(histories, cutoff)
    candidate = evaluate(fitted, histories, asked, settings.asking_gap_s)
    old = evaluate(serving, histories, asked, settings.asking_gap_s) if serving else None
    verdict = gate(candidate, old, settings.gate_tolerance, histories.users[asked])
    figures = {
        "candidate": candidate.measures(),
        "serving": old.measures() if old else {},
        "popularity": evaluate_popularity(histories, asked).measures(),
    }
    if verdict.passed and not stopping():
        fitted = finish(fitted, histories, cutoff, settings.fitting)
    return Candidate(fitted, verdict, figures)
