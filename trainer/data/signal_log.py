"""The signals of a log, counted once: event by event in time order, with the workers' signal table.

Dense features of all items are stored at some times (snapshots), and those of each event's own item after the event.
From both, the features at any event are computed exactly (see signal_replay.py). Sparse terms that read signals are
stored for every event. Nothing depends on a model's catalogue, as in a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from models.items.signal_table import NEIGHBOUR_ITEMS, LookedUp, SignalTable
from models.items.signals import SignalRules
from models.terms.registry import TermSet
from models.terms.term import CompactTerm, SparseFeatures, SparseTerm, UserSignals
from trainer.data.histories import Histories, Ints
from trainer.data.user_batches import LoggedUsers

SNAPSHOT_BYTES = 256 << 20  # of all snapshots: with more of them there are fewer events between
AT_ONCE = 32  # events whose lists are read together, each at its own time
SHORTEST = 32  # events between snapshots: a shorter distance saves nothing

_Key = tuple[SignalRules, tuple[str, ...]]

_kept: WeakKeyDictionary[Histories, dict[_Key, SignalLog]] = WeakKeyDictionary()


class SignalLog:
    """The signals of a log of N events and I items, by their places in the histories."""

    stride: int  # events between snapshots
    snapshots: npt.NDArray[np.float32]  # (N / stride, K, I): dense features just before events 0, stride, ... in time
    after: npt.NDArray[np.float32]  # (N, K) in time: those of each event's item just after it
    listed: dict[str, Listed]  # by sparse term that reads signals: before each event

    def __init__(self, histories: Histories, rules: SignalRules, terms: TermSet) -> None:
        """Count all events. Successors, most of the work, are counted only if a term reads them."""
        n, n_dense, n_items = histories.n_events, terms.n_dense, len(histories.item_ids)
        self.stride = max(SHORTEST, -(-n * 4 * max(1, n_dense) * n_items // SNAPSHOT_BYTES))
        self.snapshots = np.zeros((-(-n // self.stride) if n_dense else 0, n_dense, n_items), np.float32)
        self.after = np.empty((n, n_dense), np.float32)
        kept = {term: _Listing(n) for term in terms.sparse if term.reads_signals}
        if kept or n_dense:
            self._count(histories, SignalTable(rules, histories.item_ids), terms, kept)
        self.listed = {term.name: listing.listed() for term, listing in kept.items()}

    def _count(
        self, histories: Histories, table: SignalTable, terms: TermSet, kept: Mapping[SparseTerm, _Listing]
    ) -> None:
        rows = histories.items + 1
        logged = LoggedUsers(histories, rows) if kept else None
        # chosen once: a check of a protocol takes as long as reading a term for two events
        reads = [(term.compact if isinstance(term, CompactTerm) else term.sparse, kept[term]) for term in kept]
        row_of, times = rows.tolist(), histories.times.tolist()
        first = histories.bounds[histories.users].tolist()
        order = histories.order
        for begin in range(0, len(order), AT_ONCE):
            looked_up = []
            events = order[begin : begin + AT_ONCE]
            for place, event in enumerate(events.tolist(), begin):
                row, t = row_of[event], times[event]
                if terms.dense and place % self.stride == 0:
                    self.snapshots[place // self.stride] = terms.dense_features(table, t)[:, 1:]
                if kept:
                    before = row_of[max(first[event], event - NEIGHBOUR_ITEMS) : event]
                    looked_up.append(table.look_up([before], [t]))
                    table.follow(before, row, t)
                table.occur(row, t)
                if terms.dense:
                    self.after[place] = terms.dense_features(table, t, row)
            if logged is not None:
                users, signals = logged.before(events), UserSignals(table, LookedUp.joined(looked_up))
                for read, listing in reads:
                    listing.add(events, read(users, signals))


class Listed(NamedTuple):
    """A few items for each of N events, with some values each."""

    bounds: Ints  # (N + 1): each event's part of what follows
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float16]  # (parts, …): the table's scores

    def lengths(self, events: Ints) -> Ints:
        """Return the numbers of items of some events (B)."""
        counted: Ints = self.bounds[events + 1] - self.bounds[events]
        return counted


class _Listing:
    """Builds a `Listed` of N events, a few events at a time, in any order."""

    def __init__(self, n: int) -> None:
        self._lengths = np.zeros(n + 1, np.int64)
        self._found: list[tuple[Ints, npt.NDArray[np.int32], npt.NDArray[np.float16]]] = []

    def add(self, events: Ints, features: SparseFeatures) -> None:
        """Add the features of events (B)."""
        rows, values = features
        real = rows > 0
        self._lengths[events + 1] = np.count_nonzero(real, axis=1)
        self._found.append((events, (rows[real] - 1).astype(np.int32), values[real].astype(np.float16)))

    def listed(self) -> Listed:
        bounds = np.cumsum(self._lengths)
        parts = self._found[0][2].shape[1] if self._found else 0
        items, listed = np.empty(bounds[-1], np.int32), np.empty((parts, bounds[-1]), np.float16)
        for events, found, values in self._found:
            lengths = self._lengths[events + 1]
            begins = bounds[events] - np.cumsum(lengths) + lengths
            places = np.repeat(begins, lengths) + np.arange(len(found))
            items[places], listed[:, places] = found, values.T
        return Listed(bounds, items, listed)


def signal_log(histories: Histories, rules: SignalRules, terms: TermSet) -> SignalLog:
    """Count a log's signals, or return them from a cache that lives as long as the histories."""
    counted = _kept.setdefault(histories, {})
    key = rules, tuple(term.name for term in (*terms.dense, *terms.sparse) if getattr(term, "reads_signals", True))
    if key not in counted:
        counted[key] = SignalLog(histories, rules, terms)
    return counted[key]
