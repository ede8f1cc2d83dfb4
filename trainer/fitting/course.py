"""What a fit goes through: encoded histories, a model that begins, and passes over parts of the histories."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.config import ModelConfig
from models.encoders.encoder import StepInputs
from models.model import Model
from trainer.data.histories import Histories, Ints
from trainer.fitting import warm_start
from trainer.fitting.config import config_of
from trainer.fitting.descent import Descent
from trainer.fitting.encoding import build_catalogue, encode
from trainer.fitting.lanes import Chunk, Lanes
from trainer.fitting.losses import Asked, CatalogueCrossEntropy, Sample, Sampler
from trainer.fitting.signal_replay import SignalReplay
from trainer.fitting.warm_start import Learned
from trainer.settings import FittingSettings

SMOOTHING = 0.1  # occurrences that every item is granted: one seen long ago is unlikely, not impossible

Mask = npt.NDArray[np.bool_]
log = logging.getLogger(__name__)


class NothingToLearn(ValueError):
    """Not one user has two events to learn from."""


@dataclass(frozen=True)
class Part:
    """Some users' histories up to some time, and what is asked of each event in them."""

    first: Ints  # (U) the users' first events
    lengths: Ints  # (U) how many of their events are walked
    weights: Tensor  # (N) of each event's target in the loss; 0: none


class _Prepared(NamedTuple):
    """A chunk, and what is asked in it, of which the signals are being looked up."""

    chunk: Chunk
    asked: Tensor  # (B, T) bool: the steps after which something is asked
    weight: float  # of all that is
    prepared: Future[list[Asked]] | None  # None where nothing is


class Course:
    """A model on its way, whose vocabulary and counts are those of the events up to a time."""

    def __init__(
        self, histories: Histories, until: float, settings: FittingSettings, warm: tuple[Learned, float] | None
    ) -> None:
        """Begin with the weights of `warm`, learned up to its time, where its shape allows, else with random ones.

        Raises NothingToLearn when there are no events.
        """
        known = histories.times <= until
        if not known.any():
            raise NothingToLearn("no event lies in the training period")
        self._histories = histories
        self._settings = settings
        self._cross_entropy = CatalogueCrossEntropy(settings.train_threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.catalogue = build_catalogue(histories, np.flatnonzero(known))
        config = config_of(settings, self.catalogue)
        self.model = Model(config)
        encoded = encode(histories, self.catalogue, self.model.encoder.spec)
        rows = encoded.inputs.item_idx.numpy()
        self._importance = _importance(histories, until, settings)
        shares = self._log_shares(rows, self._importance, config)
        self.warm = warm is not None and warm_start.fits(warm[0], config)
        if warm is not None and self.warm:
            before = self._log_shares(rows, _importance(histories, warm[1], settings), config)
            warm_start.copy_weights(warm[0], self.model, self.catalogue, shares, before)
        else:
            if warm is not None:
                log.warning("the model to begin with has another shape, so this one begins anew")
            with torch.no_grad():
                self.model.bias.copy_(shares)
        self.model.to(self._device)
        self._inputs = StepInputs(*(tensor.to(self._device) for tensor in encoded.inputs))
        mixed = config.term_set.n_mixed
        self._signals = SignalReplay(histories, self.catalogue, config, self._device) if mixed else None
        counts = np.bincount(rows, self._importance, config.n_items + 1)[1:] + SMOOTHING
        enough = config.n_items <= settings.full_softmax_max_items
        self._sampler = None if enough else Sampler(self._on_device(counts), settings.sampled_items)
        self._target = encoded.target.to(self._device)
        self._asked_at = np.where(encoded.target.numpy() > 0, np.append(histories.times[1:], np.nan), np.nan)

    def training_part(self, until: float) -> Part:
        """Ask for all that happened up to a time, the recent more; raises NothingToLearn when that is nothing."""
        lengths = self._lengths(self._histories.times <= until)
        asked = self._asked_at <= until
        low, high = np.quantile(
            lengths[lengths > 0],
            (
                self._settings.min_user_history_length_percentile,
                self._settings.max_user_history_length_percentile,
            ),
        )
        users = (self._lengths(asked) > 0) & (lengths >= low) & (lengths <= max(high, 2))
        if not users.any():
            raise NothingToLearn("no user has two events in the training period")
        return self._part(users, lengths, np.where(asked, np.append(self._importance[1:], 0), 0))

    def newest_part(self, after: float) -> Part:
        """Ask for what happened after a time, with all that led there walked before."""
        asked = self._asked_at > after
        lengths = np.diff(self._histories.bounds)
        return self._part(self._lengths(asked) > 0, lengths, asked.astype(np.float64))

    def steps(self, part: Part) -> int:
        """Count the steps of descent of an epoch, up to the few that depend on how users are shuffled."""
        lanes = Lanes(part.first, part.lengths, self._settings.lanes)
        return math.ceil(lanes.length / self._settings.bptt)

    def epoch(self, part: Part, descent: Descent, rng: np.random.Generator, over: Callable[[], bool]) -> float:
        """Learn from a part once, its users shuffled, or until it is `over` -> mean loss."""
        self.model.train()
        order = rng.permutation(len(part.first))
        lanes = Lanes(part.first[order], part.lengths[order], self._settings.lanes)
        # divided by what an average chunk weighs: lanes run out at the end, and few targets shall not shout
        scale = float(part.weights.sum()) * self._settings.bptt / max(lanes.length, self._settings.bptt)
        total = weight = 0.0
        for loss, chunk_weight in self._losses(part, lanes):
            descent.step(loss / scale)
            total += float(loss.detach())
            weight += chunk_weight
            if over():
                break
        return total / weight if weight else math.nan

    def loss(self, part: Part) -> float:
        """Measure the mean loss on a part; NaN when nothing is asked in it."""
        self.model.eval()
        lanes = Lanes(part.first, part.lengths, self._settings.lanes)
        with torch.inference_mode():
            pairs = [(float(loss), weight) for loss, weight in self._losses(part, lanes)]
        weight = sum(weight for _, weight in pairs)
        return sum(loss for loss, _ in pairs) / weight if weight else math.nan

    def _losses(self, part: Part, lanes: Lanes) -> Iterator[tuple[Tensor, float]]:
        """Walk the lanes, the state carried from chunk to chunk but no gradient -> summed losses, summed weights."""
        h = self.model.encoder.initial(lanes.width)
        chunks = lanes.chunks(self._settings.bptt, self._device)
        ahead = self._prepared(part, next(chunks, None))
        while ahead is not None:
            chunk, asked, weight, prepared = ahead
            inputs = StepInputs(*(tensor[chunk.index] for tensor in self._inputs))
            if self.model.training and self._settings.item_dropout:
                new = torch.rand(inputs.item_idx.shape, device=self._device) < self._settings.item_dropout
                inputs = inputs._replace(item_idx=inputs.item_idx.masked_fill(new, 0))
            hs = self.model.encoder(h, inputs, chunk.starts)  # (B, T, S)
            h = hs[:, -1].detach()
            if prepared is None:
                ahead = self._prepared(part, next(chunks, None))
                continue
            states, sample, given = hs[asked], None, prepared.result()
            if self._sampler is not None and self.model.training:
                sample = self._sampler.draw(torch.cat([some.columns for some in given]))
            loss = self._cross_entropy(
                self.model.queries(states),
                torch.cat(self.model.mixture_of(states), 1),
                *self._answers(sample),
                given,
                sample,
            )
            # looked up while this one is learned from
            ahead = self._prepared(part, next(chunks, None))
            yield loss, weight

    def _prepared(self, part: Part, chunk: Chunk | None) -> _Prepared | None:
        """Begin to look up what is known at a chunk's targets."""
        if chunk is None:
            return None
        asked = chunk.real & (part.weights[chunk.index] > 0)
        if not asked.any():
            return _Prepared(chunk, asked, 0.0, None)
        events = chunk.index[asked]
        weights, columns = part.weights[events], self._target[events] - 1
        prepared = self._cross_entropy.prepare(columns, weights, events + 1, self._signals)
        return _Prepared(chunk, asked, float(weights.sum()), prepared)

    def _answers(self, sample: Sample | None) -> tuple[Tensor, Tensor]:
        """Give the matrix (V, H) and bias (V) of the catalogue, or of a sample of it; row 0 is not asked for.

        In training some items are taken for new ones, so that row 0 learns to stand for what only signals tell of
        (Volkovs et al., DropoutNet, 2017).
        """
        whole, biases = self.model.output_matrix, self.model.bias
        matrix, bias = whole[1:], biases[1:]
        if sample is not None:
            matrix, bias = matrix[sample.among.columns], bias[sample.among.columns]
        if not self.model.training or not self._settings.item_dropout:
            return matrix, bias
        unseen = torch.rand(len(bias), device=self._device) < self._settings.item_dropout
        return torch.where(unseen[:, None], whole[:1], matrix), torch.where(unseen, biases[:1], bias)

    @staticmethod
    def _log_shares(rows: Ints, weights: npt.NDArray[np.float64], config: ModelConfig) -> Tensor:
        """Say how often each row occurs: what a model that knows nothing else should answer (n_items + 1).

        One that is told the trends needs not be told twice: for it all are alike.
        """
        if config.term_set.n_dense:
            return torch.zeros(config.n_items + 1)
        counts = np.bincount(rows, weights, minlength=config.n_items + 1).astype(np.float64)
        counts[0] = 0  # what the vocabulary does not have, which is never ranked
        counts += SMOOTHING
        return torch.from_numpy(np.log(counts / counts.sum())).to(torch.float32)

    def _lengths(self, mask: Mask) -> Ints:
        """Count each user's events in a mask: (N) -> (U)."""
        before = np.concatenate((np.zeros(1, np.int64), np.cumsum(mask)))
        return np.diff(before[self._histories.bounds])

    def _part(self, users: Mask, lengths: Ints, weights: npt.NDArray[np.float64]) -> Part:
        return Part(self._histories.bounds[:-1][users], lengths[users], self._on_device(weights))

    def _on_device(self, array: npt.NDArray[np.floating[Any]]) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(self._device)


def _importance(histories: Histories, until: float, settings: FittingSettings) -> npt.NDArray[np.float64]:
    """Weigh each event (N) up to a time: 1, or halved with every half-life before it; later ones weigh nothing."""
    known = histories.times <= until
    if not settings.recency_mask or not known.any():
        return known.astype(np.float64)
    newest = float(histories.times[known].max())
    half_life = settings.recency_half_life * max(newest - float(histories.times.min()), 1.0)
    return np.asarray(known * 0.5 ** (np.maximum(newest - histories.times, 0) / half_life))
