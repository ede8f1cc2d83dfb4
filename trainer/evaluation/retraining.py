"""What fresh weights are worth on top of live states and signals: a split's later events under a model that is
retrained as the service would.

At each moment, so long after the split and after the last one, the model that serves is trained further on all that
happened before, and swapped if the gate lets it: trainer/service/training.py does both, as for the service. As there, a
moment passes without training when fewer than `train_min_new_events` have come since the last. A new model answers from
its moment on: the seconds that a fit takes are not waited for. Workers rebuild states under new weights from the events
that they retain, here all are at hand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from models import weights
from models.catalogue import Catalogue
from models.model import Model
from models.weights import ServingModel
from trainer.data.histories import Ints
from trainer.evaluation.hrnn import Asked, Hrnn, Live
from trainer.evaluation.protocol import Answers, Result, Split, evaluate
from trainer.fitting.course import NothingToLearn
from trainer.service.training import train
from trainer.settings import TrainerSettings
from trainer.terminal import progress

log = logging.getLogger(__name__)


class Retrained:
    """A fitted model as it is at the split, and what becomes of it."""

    def __init__(self, frozen: Hrnn, settings: TrainerSettings, every_s: float) -> None:
        """Take over a predictor's model, fitted or yet to be, and its settings; `every_s` is by the log's clock."""
        self._frozen = frozen
        self._settings = settings.model_copy(update={"fitting": frozen.settings})
        self._every_s = every_s
        self.runs = 0
        self.accepted = 0
        self.seconds = 0.0  # of all runs

    def fit(self, split: Split) -> None:
        """Learn from what came before the split, unless that is done."""
        if self._frozen.fitted is None:
            self._frozen.fit(split)

    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        """Answer as the frozen predictor does, each event by the weights that would serve when it happens."""
        fitted = self._frozen.fitted
        assert fitted is not None, "fit comes first"
        times = split.histories.times
        serving = _served(fitted.model, fitted.catalogue, float(times[split.histories.order[split.n_before - 1]]))
        runs_at = moments(split, self._every_s, self._settings.train_min_new_events)
        runs_before = np.searchsorted(runs_at, times[split.asked], side="right")
        live = Live(split, fitted.model.config)
        asked = Asked(serving, split, live, split.asked[runs_before == 0])
        done = run = 0
        with progress("retraining", len(runs_at)) as advance:
            for block in blocks:
                own = runs_before[done : done + len(block)]
                done += len(block)
                parts: list[Answers] = []
                for number in np.unique(own):
                    while run < number:
                        serving = self._round(split, serving, runs_at[run])
                        run += 1
                        advance(1, f"{self.accepted} of {self.runs} models taken")
                        asked = Asked(serving, split, live, split.asked[runs_before == run])
                    parts.append(asked.answer(block[own == number]))
                yield _joined(parts)

    def _round(self, split: Split, serving: ServingModel, moment: float) -> ServingModel:
        """Train on what happened before a moment -> the model that serves from then on."""
        begun = time.monotonic()
        order = split.histories.order
        histories = split.histories.part(order[: np.searchsorted(split.histories.times[order], moment)])
        self.runs += 1
        try:
            candidate = train(histories, serving, self._settings)
        except NothingToLearn as error:
            log.info("no model at %.0f: %s", moment, error)
        else:
            log.info("at %.0f, passed=%s: %s", moment, candidate.verdict.passed, candidate.verdict.reason)
            if candidate.verdict.passed:
                self.accepted += 1
                fitted = candidate.fitted
                serving = _served(fitted.model, fitted.catalogue, float(histories.times.max()))
        self.seconds += time.monotonic() - begun
        return serving


def evaluate_retrained(
    name: str, frozen: Hrnn, split: Split, settings: TrainerSettings, every_s: float
) -> tuple[Result, Result]:
    """Evaluate a predictor as it is, then with its model retrained: the same figures, and how many runs and models."""
    as_it_is = evaluate(name, frozen, split)
    retrained = Retrained(frozen, settings, every_s)
    figures = evaluate(f"{name} retrained", retrained, split).figures
    figures |= {
        "retrain_every_s": every_s,
        "retrainings": retrained.runs,
        "retrainings_accepted": retrained.accepted,
        "retrain_s": round(retrained.seconds, 3),
        "train_s": as_it_is.figures["train_s"],  # one fit served both
        "evaluate_s": round(figures["evaluate_s"] - retrained.seconds, 3),
    }
    return as_it_is, Result(figures["recipe"], figures)


def moments(split: Split, every_s: float, min_new_events: int) -> Sequence[float]:
    """Say when the service would train after a split: every so many seconds, if enough events have come since.

    None lie after the last event that is asked about: nothing would show what they are worth.
    """
    in_time = split.histories.times[split.histories.order]
    last = float(split.histories.times[split.asked[-1]])
    found: list[float] = []
    seen = split.n_before
    while seen < len(in_time):
        # the first moment after as many events: most of them pass where a log is quiet, and need no look
        enough = float(in_time[min(seen + max(min_new_events, 1), len(in_time)) - 1])
        moment = split.instant + every_s * (np.floor((enough - split.instant) / every_s) + 1)
        if moment > last or len(in_time) - seen < min_new_events:
            break
        found.append(float(moment))
        seen = int(np.searchsorted(in_time, moment))
    return found


def _served(model: Model, catalogue: Catalogue, watermark: float) -> ServingModel:
    """Pack a model and unpack it, as on its way to a worker."""
    blob = weights.pack(model, catalogue)
    manifest = weights.describe(
        blob,
        version=f"until-{watermark:.0f}",
        config=model.config,
        catalogue=catalogue,
        metrics={},
        trained_at=watermark,
        data_watermark=watermark,
        data_offsets={},
    )
    return weights.unpack(manifest, blob)


def _joined(parts: Sequence[Answers]) -> Answers:
    """Put the answers of several models to one block together."""
    if len(parts) == 1:
        return parts[0]
    scores, known, every = zip(*parts, strict=True)
    return Answers(torch.cat(scores), np.concatenate(known), np.concatenate(every))
