"""Availability: a rule that leaves items out of every list, and its name in the lists.

An item is left out while its last record on `items` is a null, or has `available: false`. Lists name up to where they
know these records, so that they can be made again.
"""

from __future__ import annotations

from collections.abc import Collection

from models.items.item_table import Rows
from models.items.signal_reading import SignalReading
from models.recommending.mask import ItemMask, ListBatch, MaskRule
from models.recommending.scoring import Moment
from models.records import SignalSnapshot, snapshot_id


class Availability:
    """The items that no list may name, as far as some records of `items` say so."""

    def __init__(self, unavailable: Collection[str] = (), offsets: tuple[int, ...] = ()) -> None:
        """Take the items, and by partition of `items` the offset that all records before are known to."""
        self.unavailable = frozenset(unavailable)
        self.offsets = offsets
        self._looked_up: tuple[list[str], int, Rows] | None = None

    @property
    def rules(self) -> tuple[MaskRule, ...]:
        """Return the rule that leaves the items out; none if there are no such items."""
        return (self._leave_out,) if self.unavailable else ()

    def _leave_out(self, lists: ListBatch) -> ItemMask:
        """Look the rows up once for all lists with the same ones; rows are only added, and scored once a second."""
        items, known = lists.items, self._looked_up
        if known is None or known[0] is not items.item_of_row or known[1] != items.n_rows:
            rows = items.scored(items.rows(list(self.unavailable)))
            known = self._looked_up = items.item_of_row, items.n_rows, rows
        return ItemMask(every_list=known[2])

    def snapshot(
        self, version: str, signals: Moment | SignalReading | None
    ) -> tuple[str | None, SignalSnapshot | None]:
        """Name what lists are made with: the signals and these records; (None, None) if there are neither."""
        name, snapshot = signals.named(version) if signals is not None else (None, None)
        if not any(self.offsets):
            return name, snapshot
        at, offsets, newer = (snapshot.at, snapshot.offsets, snapshot.newer_offsets) if snapshot else (0.0, [], [])
        snapshot = SignalSnapshot(at, offsets, newer, list(self.offsets))
        return snapshot_id(version, snapshot), snapshot
