"""The arithmetic of a batch: the users' hidden states after it, and a list for each of its events or requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.encoders.encoder import Gaps, Rows
from models.encoders.waves import Waves
from models.items.item_table import ItemTable
from models.items.signal_table import SignalTable
from models.model import Decoder
from models.recommending.mask import ListBatch, MaskRule, mask_of
from models.recommending.top_k import ranked_lists
from models.records import RankedItem, SignalSnapshot, snapshot_id
from models.users.batch import JobHistories
from models.users.walk import Ask, Walk
from models.weights import ServingModel

ROWS_AT_ONCE = 32  # their scores stay in a core's cache for the ranking: 64 rows took 10 to 20 % longer


@dataclass(frozen=True)
class Moment:
    """The live signals of one moment, in one reference, as the weights are."""

    table: SignalTable  # its rows are the model's catalogue's, then those of new items
    decoder: Decoder
    at: float = 0.0  # the time that the dense terms were read at
    offsets: tuple[int, ...] = ()  # the table's, when they were

    @classmethod
    def of(cls, model: ServingModel, table: SignalTable, t: float) -> Moment:
        """Read the dense terms of all items at a time: once a second, off a batch's way."""
        features = model.model.config.term_set.dense_features(table, t)
        with torch.inference_mode():
            return cls(table, model.model.decoder_at(torch.from_numpy(features)), t, table.offsets)

    def items(self, model: ServingModel) -> ItemTable:
        """Give the rows that lists of the model are made of."""
        return ItemTable(model.catalogue, self.table, len(self.decoder.bias))

    def named(self, version: str) -> tuple[str | None, SignalSnapshot | None]:
        """Name what a batch's lists are made with now, for whoever makes them again; (None, None) if it is not known.

        Between two readings of the dense terms the table goes on taking records over, which the sparse ones see.
        """
        if not self.offsets:
            return None, None
        newer = [] if self.table.offsets == self.offsets else list(self.table.offsets)
        snapshot = SignalSnapshot(self.at, list(self.offsets), newer)
        return snapshot_id(version, snapshot), snapshot


class Scoring:
    """Takes all steps of a batch at once and leaves the new hidden states in the walks."""

    @torch.inference_mode()
    def __init__(self, model: ServingModel, walks: Sequence[Walk], asks: Sequence[Ask], history_events: int) -> None:
        """Take the steps of `walks`: users with an applied event, or with a history and a request."""
        self._model = model
        self._asks = asks
        self._initial: list[int] = []  # the asks without a step
        self.rebuilt_users = 0
        waves = Waves(model)
        rows, end = model.catalogue.rows([event.item_id for walk in walks for event in walk.history]), 0
        for walk in walks:
            begin, end = end, end + len(walk.history)
            walk.rows = rows[begin:end]
            self._begin(waves, walk, history_events)
        depths = self._depths(waves)
        waves.take()
        self._waves = waves
        self._h = waves.after([number for number, _ in depths], [depth for _, depth in depths])
        self._pending_rows = model.catalogue.rows([ask.pending.item_id for ask in asks])
        self.unknown_items = int(np.count_nonzero(self._pending_rows == 0))
        moved = [walk for walk in walks if walk.applied]
        counts = [len(walk.history) - 1 - walk.first for walk in moved]
        spec = model.model.encoder.spec
        hs = spec.encode(waves.after([walk.sequence for walk in moved], counts))
        for walk, count, h in zip(moved, counts, hs, strict=True):
            if spec.kept:
                walk.h, walk.h_events = h, walk.h_events + count
            walk.model_version = model.version

    def _begin(self, waves: Waves, walk: Walk, history_events: int) -> None:
        """Go on from the user's hidden state, or from the retained history if other weights made that."""
        history, state = walk.history, walk.state
        spec = self._model.model.encoder.spec
        made_by_us = state is not None and state.model_version == self._model.version
        if state is not None and made_by_us and spec.kept and len(state.h) in (0, spec.state_bytes):
            h, walk.first, walk.h_events = state.h, max(0, walk.given - 1), state.h_events
        else:
            h, walk.first, walk.h_events = b"", max(0, walk.given - history_events), 0
            self.rebuilt_users += walk.given > 0 and walk.applied > 0 and (spec.kept or not made_by_us)
        walk.sequence = waves.add(h, history, walk.rows, walk.first, len(history) - 1 - walk.first)

    def _depths(self, waves: Waves) -> list[tuple[int, int]]:
        """Find for each ask the sequence and how many of its steps."""
        nothing = waves.add(b"", (), np.zeros(0, np.int64), 0, 0)
        depths = []
        for ask in self._asks:
            if ask.end:
                depths.append((ask.walk.sequence, ask.end - 1 - ask.walk.first))
            else:
                self._initial.append(len(depths))
                depths.append((nothing, 0))
        return depths

    @torch.inference_mode()
    def lists(
        self, places: int | Rows, rules: Sequence[MaskRule], asking_gap_s: float | Gaps, moment: Moment | None = None
    ) -> list[list[RankedItem]]:
        """Rank a list for every ask, of `places` items or of as many as the rules leave.

        `places` and `asking_gap_s`, the time from the pending event to that of asking, are one for all asks or one
        for each (N); asked for a time before that event, a gap is below 0, which is of the lowest level. Without a
        moment no signal counts for anything, and only the model's own catalogue is ranked.
        """
        pending, terms = [ask.pending for ask in self._asks], self._model.model.config.term_set
        gaps_s = np.broadcast_to(np.asarray(asking_gap_s, np.float64), len(pending))
        wanted = np.broadcast_to(np.asarray(places, np.int64), len(pending))
        asked = self._waves.asked(self._h, pending, self._pending_rows, gaps_s)
        if self._initial:
            asked[self._initial] = self._h[self._initial]
        at = [ask.pending.timestamp + gap_s for ask, gap_s in zip(self._asks, gaps_s.tolist(), strict=True)]
        items = moment.items(self._model) if moment is not None else ItemTable(self._model.catalogue)
        histories = JobHistories.of(self._asks, at, items)
        lists: list[list[RankedItem]] = []
        for start in range(0, len(pending), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(pending))
            part = histories.part(start, stop)
            if moment is None:
                ranked = self._model.model.scores(asked[start:stop])
            else:
                sparse = terms.sparse_features(part.users(), moment.table, items.n_rows)
                ranked = self._model.model.scores(asked[start:stop], moment.decoder, sparse)
            had_by, had = part.had()
            mask = mask_of(rules, ListBatch(stop - start, items, had_by, items.scored(had)))
            lists += ranked_lists(ranked, mask, wanted[start:stop], items)
        return lists
