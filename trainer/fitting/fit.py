"""Fitting a model: how long, from where, and when to stop. What a pass does is in course.py."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.catalogue import Catalogue
from models.model import Model
from trainer.data.histories import Histories
from trainer.fitting.course import Course
from trainer.fitting.descent import Descent
from trainer.fitting.warm_start import Learned
from trainer.settings import FittingSettings
from trainer.terminal import progress

GAIN = 0.002  # of the newest slice's mean loss: an epoch that brings less is the last
UNWATCHED = 4  # epochs, when nothing tells whether they are too many

log = logging.getLogger(__name__)


class Epoch(NamedTuple):
    """What a pass over the training events came to."""

    number: int  # from 1; 0 is the model as it begins
    loss: float  # the mean on what was learned from, weighed and with dropout; NaN for number 0
    newest_loss: float  # the mean on the newest slice, without either; NaN if nothing in it could be asked
    seconds: float  # since the fit began


@dataclass(frozen=True)
class Fitted:
    """A model and how it came about."""

    model: Model  # in eval mode, on the processor
    catalogue: Catalogue
    loss: float  # the last epoch's, weighted as in training
    valid_perplexity: float  # on the newest slice, at the real gaps; NaN if nothing in it could be asked
    epochs: int  # up to the best one
    seconds: float
    warm: bool
    curve: tuple[Epoch, ...] = ()  # of all epochs, those after the best one included
    out_of_time: bool = False  # more time might have made it better


def newest_slice(histories: Histories, valid_fraction: float, not_before: float = -math.inf) -> float:
    """Give the time after which the newest slice lies: the newest share of events, but none that the serving model
    has learned from (they end at `not_before`). So neither model has seen what the gate asks them.
    """
    return max(float(np.quantile(histories.times, 1 - valid_fraction, method="lower")), not_before)


def fit(
    histories: Histories,
    cutoff: float,
    settings: FittingSettings,
    warm: tuple[Learned, float] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    told: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Fit on what happened up to `cutoff` and keep the epoch that foretells best what happened after it.

    How many epochs is up to the data: ratings of a few users in bursts take ten, films of many overfit after three.
    `warm` is a model to begin with and the time up to which it has learned. `told` of each epoch, whoever gives up
    the fit raises.
    Raises NothingToLearn. The same data, settings and machine give the same weights, unless time runs out.
    """
    begun = time.monotonic()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        rng = np.random.default_rng(settings.seed)
        course = Course(histories, cutoff, settings, warm)
        training = course.training_part(cutoff)
        newest = course.newest_part(cutoff)
        steps = course.steps(training)
        descent = Descent(course.model, settings.learning_rate, steps, weight_decay=settings.weight_decay)
        epochs = settings.epochs if len(newest.first) else min(settings.epochs, UNWATCHED)
        # a beginning that no epoch betters is kept as it is: signals weighed evenly are hard to better by 1,000 events
        best, best_epoch, loss, out_of_time = _copied(course.model), 0, math.nan, False
        best_loss, least = course.loss(newest) if len(newest.first) else math.inf, math.inf
        curve = [Epoch(0, math.nan, best_loss, time.monotonic() - begun)] if math.isfinite(best_loss) else []
        with progress("fitting", epochs) as advance:
            for epoch in range(1, epochs + 1):
                loss = course.epoch(training, descent, rng, lambda: stopping() or _over(begun, settings))
                with descent.averaged():
                    newest_loss = course.loss(newest)
                    no_better = newest_loss > least - GAIN
                    out_of_time = not no_better and _over(begun, settings)
                    ends = no_better or stopping() or out_of_time
                    least = min(least, newest_loss)
                    if newest_loss < best_loss or not len(newest.first):  # nothing to compare by: the last is the best
                        best, best_loss, best_epoch = _copied(course.model), newest_loss, epoch
                curve.append(Epoch(epoch, loss, newest_loss, time.monotonic() - begun))
                said = f"loss {loss:.3f}, newest slice {newest_loss:.3f}, {curve[-1].seconds:.1f} s"
                log.info("epoch %d of at most %d: %s", epoch, epochs, said)
                advance(1, said)
                told(curve[-1])
                if ends:
                    break
        if out_of_time:
            log.warning("the fit ended for lack of time: HRNN_TRAIN_MAX_S=%g", settings.train_max_s)
        course.model.load_state_dict(best)
    return Fitted(
        course.model.cpu().eval(),
        course.catalogue,
        loss,
        math.exp(min(best_loss, 700.0)),
        best_epoch,
        time.monotonic() - begun,
        course.warm,
        tuple(curve),
        out_of_time,
    )


def finish(fitted: Fitted, histories: Histories, cutoff: float, settings: FittingSettings) -> Fitted:
    """Let a model that has passed the gate learn the newest slice too, with its new items: one more pass over all.

    Without it no item of the newest tenth could be recommended before the next run. A pass over that tenth alone cost
    ratings in bursts, whose newest tenth is some fifty users, 9 to 59 % of perplexity on what came after, by its rate;
    over everything it gains, most at the full rate, down to zero. A second one gains 3 % more on ratings in bursts and
    costs 5 % on films. Where learning has bettered nothing so far it is left at knowing the new items. Gives the model
    back as it was if the pass leaves it not finite.
    """
    begun = time.monotonic()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        course = Course(histories, math.inf, settings, (fitted, cutoff))
        if fitted.epochs or fitted.warm:
            part = course.training_part(math.inf)
            steps, decay = course.steps(part), settings.weight_decay
            descent = Descent(course.model, settings.learning_rate, steps, epochs=1, weight_decay=decay)
            course.epoch(part, descent, np.random.default_rng(settings.seed), lambda: _over(begun, settings))
    if not all(bool(torch.isfinite(tensor).all()) for tensor in course.model.state_dict().values()):
        log.error("the last pass left weights that are not finite, so it is dropped")
        return fitted
    return dataclasses.replace(
        fitted,
        model=course.model.cpu().eval(),
        catalogue=course.catalogue,
        seconds=fitted.seconds + time.monotonic() - begun,
        out_of_time=fitted.out_of_time or _over(begun, settings),
    )


def _over(begun: float, settings: FittingSettings) -> bool:
    return time.monotonic() - begun > settings.train_max_s


def _copied(model: Model) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
