"""A log's signals, counted once: events one by one in the order that they happened, by the table that serves.

What the table said of all items is kept at some moments, snapshots, and after each event for the event's own item;
from both the trends at any event are made exactly (see signal_replay.py). What followed the user's last items, and
what their neighbours were, is kept for every event. Nothing here depends on which items a model knows, as it does not
in the stream.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from models.items.signal_table import NEIGHBOUR_ITEMS, LookedUp, SignalTable
from models.items.signals import SignalRules
from trainer.data.histories import Floats, Histories, Ints

SNAPSHOT_BYTES = 256 << 20  # all snapshots together: the more there are, the fewer events come between
AT_ONCE = 32  # events whose lists are read together, each as of its own time
SHORTEST = 32  # events between snapshots: fewer save nothing

_kept: WeakKeyDictionary[Histories, dict[tuple[SignalRules, bool, bool], SignalLog]] = WeakKeyDictionary()


class SignalLog:
    """The signals of a log of N events and I items, which are named by their places in the histories."""

    stride: int  # events between snapshots
    snapshots: npt.NDArray[np.float32]  # (N / stride, K, I): the trends just before events 0, stride, ... in time
    after: Floats  # (N, K) in time: the levels of each event's item just after it
    followers: Listed  # before each event, of the user's last items: weights after the newest, and after those before
    neighbours: Listed

    def __init__(self, histories: Histories, rules: SignalRules, *, follow: bool, neighbours: bool) -> None:
        """Count all events; what follows what, and neighbours of it, only if asked to: they are most of the work."""
        n, n_trends, n_items = histories.n_events, len(rules.half_lives_s), len(histories.item_ids)
        self.stride = max(SHORTEST, -(-n * 4 * max(1, n_trends) * n_items // SNAPSHOT_BYTES))
        self.snapshots = np.zeros((-(-n // self.stride) if n_trends else 0, n_trends, n_items), np.float32)
        self.after = np.empty((n, n_trends))
        table = SignalTable(rules, histories.item_ids)
        rows, times, users = (histories.items + 1).tolist(), histories.times.tolist(), histories.users.tolist()
        first = histories.bounds[:-1].tolist()
        followers, beside = _Listing(n, 2), _Listing(n, 1)
        order = histories.order
        for begin in range(0, n, AT_ONCE):
            looked_up = []
            events = order[begin : begin + AT_ONCE]
            for place, event in enumerate(events.tolist(), begin):
                row, t = rows[event], times[event]
                if n_trends and place % self.stride == 0:
                    self.snapshots[place // self.stride] = table.trends(t)[:, 1:]
                if follow:
                    before = rows[max(first[users[event]], event - NEIGHBOUR_ITEMS) : event]
                    looked_up.append(table.look_up([before], [t]))
                    table.follow(before, row, t)
                table.occur(row, t)
                self.after[place] = table.levels(row)
            if follow:
                together = LookedUp.joined(looked_up)
                followers.add(events, *table.successors(together))
                if neighbours:
                    beside.add(events, *table.neighbours(together))
        self.followers, self.neighbours = followers.listed(), beside.listed()


class Listed(NamedTuple):
    """A few items for each of N events, and some numbers of each."""

    bounds: Ints  # (N + 1): each event's part of what follows
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float16]  # (parts, …): the table's scores

    def lengths(self, events: Ints) -> Ints:
        """Count the items of some events (B)."""
        counted: Ints = self.bounds[events + 1] - self.bounds[events]
        return counted


class _Listing:
    """A `Listed` of N events that is being made, of a few of them at a time, in any order."""

    def __init__(self, n: int, parts: int) -> None:
        self._lengths = np.zeros(n + 1, np.int64)
        self._parts = parts
        self._found: list[tuple[Ints, npt.NDArray[np.int32], npt.NDArray[np.float16]]] = []

    def add(self, events: Ints, rows: Ints, values: npt.NDArray[np.float32]) -> None:
        """Take over what was read of events (B): rows (B, S), where 0 is none, values (B, S, parts)."""
        real = rows > 0
        self._lengths[events + 1] = np.count_nonzero(real, axis=1)
        self._found.append((events, (rows[real] - 1).astype(np.int32), values[real].astype(np.float16)))

    def listed(self) -> Listed:
        bounds = np.cumsum(self._lengths)
        items, listed = np.empty(bounds[-1], np.int32), np.empty((self._parts, bounds[-1]), np.float16)
        for events, found, values in self._found:
            lengths = self._lengths[events + 1]
            begins = bounds[events] - np.cumsum(lengths) + lengths
            places = np.repeat(begins, lengths) + np.arange(len(found))
            items[places], listed[:, places] = found, values.T
        return Listed(bounds, items, listed)


def signal_log(histories: Histories, rules: SignalRules, *, follow: bool, neighbours: bool) -> SignalLog:
    """Count a log's signals, or take what was counted of these very histories before; kept as long as they are."""
    counted = _kept.setdefault(histories, {})
    asked = rules, follow, neighbours
    if asked not in counted:
        counted[asked] = SignalLog(histories, rules, follow=follow, neighbours=neighbours)
    return counted[asked]
