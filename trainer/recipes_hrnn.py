"""The model as a recipe: fitted before the split, then asked with live states and live signals."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
import torch

from models.hrnn import StepInputs
from models.signal_table import SignalTable, padded
from models.signals import LAST_ITEMS, SignalRules
from models.state import HISTORY_EVENTS
from trainer.encoding import encode
from trainer.evaluation import states_before
from trainer.fitting import Fitted, finish, fit, newest_slice
from trainer.histories import Ints
from trainer.protocol import Answers, Split
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

    @torch.inference_mode()
    def answer(self, split: Split, blocks: Iterator[Ints]) -> Iterator[Answers]:
        """Score each event's items by the state before it, its own gap, and the signals before it."""
        assert self.fitted is not None, "fit comes first"
        model, catalogue = self.fitted.model, self.fitted.catalogue
        config, histories = model.config, split.histories
        encoded = encode(histories, catalogue, config.control_bounds_s)
        asked = split.asked - 1
        h = states_before(self.fitted, histories, encoded.inputs, asked)
        at = torch.from_numpy(asked)
        h = model.step(h, StepInputs(*(tensor[at] for tensor in encoded.inputs)))
        rules = config.signal_rules or SignalRules(half_lives_s=())
        table = SignalTable(rules, split.item_ids)
        live = _Live(table, split, self._frozen)
        # the catalogue is sorted as the known items are: rows agree
        assert catalogue.item_ids == split.item_ids[: split.n_known], "the model has another catalogue"
        done = 0
        for block in blocks:
            states = h[done : done + len(block)]
            done += len(block)
            queries = model.queries(states)
            trend_weights, sparse_weights = model.mixture_of(states)
            base = model.decoder_at(torch.zeros(0, table.n_rows))
            scores = torch.addmm(base.bias, queries, base.matrix[:, : config.hidden_dimension].T)
            successors, repeats = [], []
            for number, event in enumerate(block.tolist()):
                live.upto(event)
                t = live.time(event)
                if config.n_trends:
                    scores[number] += trend_weights[number] @ torch.from_numpy(table.trends(t))
                if config.successor_half_life_s:
                    successors.append(table.successors(live.last(event, len(LAST_ITEMS)), t))
                if config.repeats:
                    rows = np.array(sorted(set(live.last(event, HISTORY_EVENTS))), np.int64)
                    repeats.append((rows, np.ones(len(rows), np.float32)))
            for part, sparse in enumerate(part for part in (successors, repeats) if part):
                columns, values = map(torch.from_numpy, padded(sparse))
                scores.scatter_add_(1, columns, values * sparse_weights[:, part, None])
            target = torch.from_numpy(split.rows[block])
            own = scores.gather(1, target[:, None]).squeeze(1)
            among = torch.logsumexp(scores[:, 1 : split.n_known + 1], 1), torch.logsumexp(scores[:, 1:], 1)
            yield Answers(scores, *((own - whole).double().numpy() for whole in among))


class _Live:
    """Feeds a table with a log's events, up to the one that is asked."""

    def __init__(self, table: SignalTable, split: Split, frozen: bool) -> None:
        self._table = table
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
            self._table.follow(self.last(past, len(LAST_ITEMS)), row, t)
            self._table.occur(row, t)
            self._place += 1

    def last(self, event: int, most: int) -> list[int]:
        """Name what the user had before an event, the newest last."""
        return self._rows[max(self._first[event], event - most) : event]

    def time(self, event: int) -> float:
        """Say at what time to read signals for an event."""
        return min(self._times[event], self._instant)


def without_signals(settings: FittingSettings) -> FittingSettings:
    """Take the signals away."""
    return settings.model_copy(
        update={"half_lives_s": (), "successor_half_life_s": 0.0, "repeats": False, "item_dropout": 0.0}
    )
