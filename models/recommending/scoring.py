"""The arithmetic of a batch: the users' hidden states after it, and a list for each of its events or requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import torch

from models.encoders.encoder import Gaps, Rows
from models.encoders.waves import Waves
from models.items.item_table import ItemTable
from models.items.signal_table import NEIGHBOUR_ITEMS, Doubles, SignalTable, successor_parts
from models.model import Decoder, Sparse
from models.recommending.mask import ListBatch, MaskRule, mask_of
from models.recommending.top_k import ranked_lists
from models.records import RankedItem, SignalSnapshot, snapshot_id
from models.terms import repeats
from models.users import earlier
from models.users.walk import Ask, Walk
from models.weights import ServingModel

ROWS_AT_ONCE = 32  # their scores stay in a core's cache for the ranking: 64 rows took 10 to 20 % longer


@dataclass(frozen=True)
class Moment:
    """The live signals of one moment, in one reference, as the weights are."""

    table: SignalTable  # its rows are the model's catalogue's, then those of new items
    decoder: Decoder
    at: float = 0.0  # the time that the trends were read at
    offsets: tuple[int, ...] = ()  # the table's, when they were

    @classmethod
    def of(cls, model: ServingModel, table: SignalTable, t: float) -> Moment:
        """Read all trends at a time: what is worth doing once a second, off a batch's way.

        The table may count at more half-lives than the model knows.
        """
        trends, known = table.trends(t), model.model.config.half_lives_s
        if known != table.rules.half_lives_s:
            trends = trends[[table.rules.half_lives_s.index(half_life_s) for half_life_s in known]]
        with torch.inference_mode():
            return cls(table, model.model.decoder_at(torch.from_numpy(trends)), t, table.offsets)

    def items(self, model: ServingModel) -> ItemTable:
        """Give the rows that lists of the model are made of."""
        return ItemTable(model.catalogue, self.table, len(self.decoder.bias))

    def named(self, version: str) -> tuple[str | None, SignalSnapshot | None]:
        """Name what a batch's lists are made with now, for whoever makes them again; (None, None) if it is not known.

        Between two readings of the trends the table goes on taking records over, which successors and neighbours see.
        """
        if not self.offsets:
            return None, None
        newer = [] if self.table.offsets == self.offsets else list(self.table.offsets)
        snapshot = SignalSnapshot(self.at, list(self.offsets), newer)
        return snapshot_id(version, snapshot), snapshot


class _Had(NamedTuple):
    """What B users have had, one after the other, and what is known of each."""

    rows: Rows  # (N,) of the moment's table, or without a moment of the catalogue
    known: Doubles  # (N,) when, or how often
    lengths: Rows  # (B,)

    def part(self, start: int, stop: int) -> _Had:
        """Cut some users out."""
        begin, end = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        return _Had(self.rows[begin:end], self.known[begin:end], self.lengths[start:stop])

    def laid_out(self) -> tuple[Rows, Doubles]:
        """Lay each user's out in a row of its own: (B, S), (B, S), filled up with 0."""
        real = np.arange(int(self.lengths.max(initial=0))) < self.lengths[:, None]
        rows, known = np.zeros(real.shape, np.int64), np.zeros(real.shape)
        rows[real], known[real] = self.rows, self.known
        return rows, known


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
        hs = model.model.encoder.spec.encode(waves.after([walk.sequence for walk in moved], counts))
        for walk, count, h in zip(moved, counts, hs, strict=True):
            walk.h = h
            walk.h_events += count
            walk.model_version = model.version

    def _begin(self, waves: Waves, walk: Walk, history_events: int) -> None:
        """Go on from the user's hidden state, or from the retained history if other weights made that."""
        history, state = walk.history, walk.state
        width = self._model.model.encoder.spec.state_bytes
        if state is not None and state.model_version == self._model.version and len(state.h) in (0, width):
            h, walk.first, walk.h_events = state.h, max(0, walk.given - 1), state.h_events
        else:
            h, walk.first, walk.h_events = b"", max(0, walk.given - history_events), 0
            self.rebuilt_users += walk.given > 0 and walk.applied > 0
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
        pending = [ask.pending for ask in self._asks]
        gaps_s = np.broadcast_to(np.asarray(asking_gap_s, np.float64), len(pending))
        wanted = np.broadcast_to(np.asarray(places, np.int64), len(pending))
        asked = self._waves.asked(self._h, pending, self._pending_rows, gaps_s)
        if self._initial:
            asked[self._initial] = self._h[self._initial]
        at = [ask.pending.timestamp + gap_s for ask, gap_s in zip(self._asks, gaps_s.tolist(), strict=True)]
        had = self._had(moment)
        before = self._had_earlier(moment)
        items = moment.items(self._model) if moment is not None else ItemTable(self._model.catalogue)
        lists: list[list[RankedItem]] = []
        for start in range(0, len(pending), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(pending))
            both = had.part(start, stop), before.part(start, stop)
            if moment is None:
                ranked = self._model.model.scores(asked[start:stop])
            else:
                sparse = self._sparse(moment, *both, at[start:stop])
                ranked = self._model.model.scores(asked[start:stop], moment.decoder, sparse)
            had_by = np.concatenate([np.repeat(np.arange(stop - start), part.lengths) for part in both])
            had_rows = items.scored(np.concatenate([part.rows for part in both]))
            mask = mask_of(rules, ListBatch(stop - start, items, had_by, had_rows))
            lists += ranked_lists(ranked, mask, wanted[start:stop], items)
        return lists

    def _sparse(self, moment: Moment, had: _Had, before: _Had, at: Sequence[float]) -> Sparse:
        """Read what follows and what neighbours each user's last items, and what the user's own history says.

        Users have `had` items at some times, and `before` those in numbers; they ask at `at` (B).
        """
        config, table = self._model.model.config, moment.table
        found = []
        if config.successor_half_life_s:
            rows, bounds = had.rows.tolist(), np.concatenate(([0], np.cumsum(had.lengths))).tolist()
            last = [rows[max(begin, end - NEIGHBOUR_ITEMS) : end] for begin, end in pairwise(bounds)]
            looked_up = table.look_up(last, at)
            followers, scores = table.successors(looked_up)
            found.append((followers, successor_parts(scores)))
            if config.neighbours:
                found.append(table.neighbours(looked_up))
        if config.repeats:
            laid, when = had.laid_out()
            found.append((laid, repeats.parts(laid, had.lengths, when, np.array(at))))
        if config.earlier:
            laid, counts = before.laid_out()
            found.append((laid, earlier.parts(counts)))
        for laid, values in found:
            late = laid >= len(moment.decoder.bias)
            laid[late], values[late] = 0, 0.0
        return [(torch.from_numpy(laid), torch.from_numpy(values)) for laid, values in found]

    def _had(self, moment: Moment | None) -> _Had:
        """Find what users have had, and when."""
        columns = [ask.walk.rows[ask.begin : ask.end] for ask in self._asks]
        rows, lengths = np.concatenate(columns), np.fromiter(map(len, columns), np.int64, len(columns))
        if moment is None:
            return _Had(rows, np.zeros(len(rows)), lengths)
        had = [ask.walk.history[ask.begin : ask.end] for ask in self._asks]
        times = np.fromiter((event.timestamp for events in had for event in events), np.float64, len(rows))
        if not rows.all():  # new items, which the table alone has rows of
            end = 0
            for events in had:
                begin, end = end, end + len(events)
                if not rows[begin:end].all():
                    rows[begin:end] = [moment.table.row(event.item_id) for event in events]
        return _Had(rows, times, lengths)

    def _had_earlier(self, moment: Moment | None) -> _Had:
        """Find what users had before the retained history, and how often."""
        each = [ask.earlier for ask in self._asks]
        item_ids = list(chain.from_iterable(each))
        counts = np.fromiter(chain.from_iterable(of_user.values() for of_user in each), np.float64, len(item_ids))
        rows = self._model.catalogue.rows(item_ids)
        if moment is not None:
            new = np.flatnonzero(rows == 0)
            rows[new] = [moment.table.row(item_ids[place]) for place in new.tolist()]
        return _Had(rows, counts, np.fromiter(map(len, each), np.int64, len(each)))
