"""The model as a predictor: fitted before the split, then asked with live states and live signals."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
import torch

from models.config import ModelConfig
from models.encoders.encoder import StepInputs
from models.items.signal_table import NEIGHBOUR_ITEMS, LookedUp, SignalTable
from models.items.signals import LAST_ITEMS, SignalRules
from models.model import add_sparse
from models.terms.registry import TERMS
from models.terms.taste import Taste
from trainer.data.histories import Ints
from trainer.data.user_batches import LoggedUsers
from trainer.evaluation.protocol import Answers, Split
from trainer.evaluation.trials import states_before
from trainer.fitting.encoding import encode
from trainer.fitting.fit import Fitted, finish, fit, newest_slice
from trainer.fitting.warm_start import Learned
from trainer.settings import FittingSettings

_fitted: WeakKeyDictionary[Split, dict[FittingSettings, Fitted]] = WeakKeyDictionary()


class Hrnn:
    """A fitted HRNN. `frozen` leaves the signals as they were at the split: what their being live is worth."""

    def __init__(self, settings: FittingSettings, *, frozen: bool = False) -> None:
        """Say how to fit."""
        self._settings = settings
        self._frozen = frozen
        self.fitted: Fitted | None = None

    def fit(self, split: Split) -> None:
        """Go the service's own course: fit, the newest slice telling when to stop, then one pass over that slice too.

        A second fit on everything, for as long as the first one took, would be twice the work for a model that is not
        the one that the service publishes. The same fit of the same split is done once: signals can be frozen after.
        """
        fits = _fitted.setdefault(split, {})
        if self._settings not in fits:
            histories = split.training()
            cutoff = newest_slice(histories, self._settings.valid_fraction)
            begun = fit(histories, cutoff, self._settings)
            fits[self._settings] = finish(begun, histories, cutoff, self._settings)
        self.fitted = fits[self._settings]

    @property
    def settings(self) -> FittingSettings:
        """Say how it is fitted."""
        return self._settings

    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        """Score each event's items by the state before it, its own gap, and the signals before it."""
        assert self.fitted is not None, "fit comes first"
        live = Live(split, self.fitted.model.config, frozen=self._frozen)
        asked = Asked(self.fitted, split, live, split.asked)
        for block in blocks:
            yield asked.answer(block)


class Asked:
    """One model, asked about some of a split's events in the order that they happened."""

    @torch.inference_mode()
    def __init__(self, learned: Learned, split: Split, live: Live, events: Ints) -> None:
        """Walk the events' users up to them; items that the model does not know have its default for new ones."""
        self._model, self._split, self._live = learned.model, split, live
        encoded = encode(split.histories, learned.catalogue, self._model.encoder.spec)
        before = events - 1
        h = states_before(learned, split.histories, encoded.inputs, before)
        at = torch.from_numpy(before)
        self._h = self._model.encoder.step(h, StepInputs(*(tensor[at] for tensor in encoded.inputs)))
        rows = torch.from_numpy(np.append(0, learned.catalogue.rows(split.item_ids)))
        self._matrix, self._bias = self._model.output_matrix[rows], self._model.bias[rows]
        self._users = LoggedUsers(split.histories, split.rows)
        self._done = 0

    @torch.inference_mode()
    def answer(self, block: Ints) -> Answers:
        """Answer the next few of the events, (B)."""
        model, live, table = self._model, self._live, self._live.table
        terms, split = model.config.term_set, self._split
        states = self._h[self._done : self._done + len(block)]
        self._done += len(block)
        dense_weights, sparse_weights = model.mixture_of(states)
        scores = torch.addmm(self._bias, model.queries(states), self._matrix.T)
        at = [live.time(event) for event in block.tolist()]
        looked_up = []
        for number, (event, t) in enumerate(zip(block.tolist(), at, strict=True)):
            live.upto(event)
            if terms.dense:
                scores[number] += dense_weights[number] @ torch.from_numpy(terms.dense_features(table, t))
            if terms.reads_signals:
                looked_up.append(table.look_up([live.last(event, NEIGHBOUR_ITEMS)], [t]))
        users, together = self._users.before(block, np.array(at)), LookedUp.joined(looked_up) if looked_up else None
        add_sparse(scores, terms.sparse_features(users, table, table.n_rows, together), sparse_weights)
        split.mask(scores, block)
        target = torch.from_numpy(split.rows[block])
        own = scores.gather(1, target[:, None]).squeeze(1)
        among = torch.logsumexp(scores[:, 1 : split.n_known + 1], 1), torch.logsumexp(scores[:, 1:], 1)
        return Answers(scores, *((own - whole).double().numpy() for whole in among))


class Live:
    """Live signals: a table that is fed with a log's events, up to the one that is asked."""

    def __init__(self, split: Split, config: ModelConfig, *, frozen: bool = False) -> None:
        """Begin before the log's first event; `frozen` signals stay as they are at the split."""
        self.table = SignalTable(config.signal_rules or SignalRules(half_lives_s=()), split.item_ids)
        self._order = split.histories.order.tolist()
        self._rows: list[int] = split.rows.tolist()
        self._times: list[float] = split.histories.times.tolist()
        self._first: list[int] = split.histories.bounds[split.histories.users].tolist()
        self._place = 0
        self._end = split.n_before if frozen else len(self._order)
        self._instant = split.instant if frozen else np.inf

    def upto(self, event: int) -> None:
        """Count all that happened before an event."""
        while self._place < self._end and self._order[self._place] != event:
            past = self._order[self._place]
            row, t = self._rows[past], self._times[past]
            self.table.follow(self.last(past, len(LAST_ITEMS)), row, t)
            self.table.occur(row, t)
            self._place += 1

    def last(self, event: int, most: int) -> list[int]:
        """Name what the user had before an event, the newest last."""
        return self._rows[max(self._first[event], event - most) : event]

    def time(self, event: int) -> float:
        """Say at what time to read signals for an event."""
        return min(self._times[event], self._instant)


def without_signals(settings: FittingSettings) -> FittingSettings:
    """Leave taste alone."""
    others = tuple(name for name in TERMS if name != Taste.name)
    return settings.model_copy(update={"without_terms": others, "item_dropout": 0.0})
