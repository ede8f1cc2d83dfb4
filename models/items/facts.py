"""Items' facts as columns: what the topic `items` says, by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.facts.records import Attributes, Item

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

_NOTHING: Attributes = {}


@dataclass(frozen=True, eq=False)
class FactTable:
    """Facts by row. A table is never changed: `updated` returns another one.

    Row 0 is nobody's: available, and else nothing is known. An item without a row is like that.
    """

    item_ids: list[str] = field(default_factory=lambda: [""])
    available: Bools = field(default_factory=lambda: np.ones(1, np.bool_))
    created_at: Doubles = field(default_factory=lambda: np.full(1, np.nan))
    """Unix seconds; NaN where it is not known."""
    titles: list[str | None] = field(default_factory=lambda: [None])
    attributes: list[Attributes] = field(default_factory=lambda: [_NOTHING])
    offsets: tuple[int, ...] = ()
    """By partition of `items`: every record before is in."""
    row_of_item: dict[str, int] = field(default_factory=dict)

    def row(self, item_id: str) -> int:
        """Return an item's row; 0 if it has none."""
        return self.row_of_item.get(item_id, 0)

    @cached_property
    def unavailable(self) -> frozenset[str]:
        """Return the items that no list may name."""
        return frozenset(self.item_ids[row] for row in np.flatnonzero(~self.available).tolist())

    def updated(self, changes: Mapping[str, Item | None], offsets: tuple[int, ...]) -> FactTable:
        """Return a table with each item's newest record (None: withdrawn) in place of what was known of the item."""
        new = [item_id for item_id in changes if item_id not in self.row_of_item]
        item_ids, row_of_item = self.item_ids, self.row_of_item
        if new:
            item_ids = item_ids + new
            row_of_item = row_of_item | {item_id: row for row, item_id in enumerate(new, len(self.item_ids))}
        available = np.concatenate((self.available, np.ones(len(new), np.bool_)))
        created_at = np.concatenate((self.created_at, np.full(len(new), np.nan)))
        titles = self.titles + [None] * len(new)
        attributes = self.attributes + [_NOTHING] * len(new)
        for item_id, item in changes.items():
            row, known = row_of_item[item_id], item or Item(item_id, available=False)
            available[row], titles[row], attributes[row] = known.available, known.title, known.attributes
            created_at[row] = np.nan if known.created_at is None else known.created_at
        return FactTable(item_ids, available, created_at, titles, attributes, offsets, row_of_item)
