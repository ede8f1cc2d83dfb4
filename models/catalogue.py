"""The vocabulary that a model was trained with: item ids and event types as rows of its matrices."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from models.records import MAX_EVENT_VALUE

VALUE_LIMIT = 5.0
"""Standardized event values are cut here: one absurd value must not drive a user's state for good."""

MOST = 2**53  # counts are added up as floats


class _Rows(dict[str, int]):
    """Ids to rows, an absent id to row 0; so `map(rows.__getitem__, ids)` runs without Python code."""

    __slots__ = ()

    def __missing__(self, key: str) -> int:
        return 0


class Catalogue:
    """Ids as rows: item row i + 1 is `item_ids[i]`, type row i + 1 is `event_types[i]`, row 0 is all else.

    `item_counts` are the items' events in training, or none if they were not kept: they rank nothing, live
    popularity is held against them. Raises ValueError for ids that occur twice, for a mean or deviation that can't
    standardize, and for counts that are none.
    """

    __slots__ = (
        "event_types",
        "item_counts",
        "item_ids",
        "item_of_row",
        "row_of_item",
        "row_of_type",
        "value_mean",
        "value_std",
    )

    def __init__(
        self,
        item_ids: Sequence[str],
        event_types: Sequence[str] = (),
        value_mean: float = 0.0,
        value_std: float = 1.0,
        item_counts: Sequence[int] = (),
    ) -> None:
        """Take the ids in the order of their rows."""
        self.item_ids = list(item_ids)
        self.event_types = list(event_types)
        if not (math.isfinite(value_mean) and math.isfinite(value_std) and value_std > 0):
            raise ValueError(f"event values can't be standardized by mean {value_mean}, deviation {value_std}")
        self.item_counts = list(item_counts)
        if len(self.item_counts) not in (0, len(self.item_ids)) or not all(0 <= n < MOST for n in self.item_counts):
            raise ValueError(f"{len(self.item_counts)} counts for {len(self.item_ids)} items, or some that are none")
        self.value_mean = value_mean
        self.value_std = value_std
        self.row_of_item = _Rows({item_id: row for row, item_id in enumerate(self.item_ids, 1)})
        self.row_of_type = _Rows({name: row for row, name in enumerate(self.event_types, 1)})
        self.item_of_row = ["", *self.item_ids]
        if len(self.row_of_item) != len(self.item_ids) or len(self.row_of_type) != len(self.event_types):
            raise ValueError("the vocabulary names an item or an event type twice")

    def row(self, item_id: str) -> int:
        """Look an item's row up; 0 if the model does not know it."""
        return self.row_of_item[item_id]

    def rows(self, item_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Look many items' rows up: ids (N) -> rows (N,), 0 for the unknown."""
        return np.fromiter(map(self.row_of_item.__getitem__, item_ids), np.int64, len(item_ids))

    def type_row(self, event_type: str | None) -> int:
        """Look an event type's row up; 0 for none and for the unknown."""
        return 0 if event_type is None else self.row_of_type[event_type]

    def standardized(self, event_value: float | None) -> float:
        """Scale an event's value to the training data's mean and deviation; 0 for none."""
        if event_value is None or math.isnan(event_value):
            return 0.0
        # bounded before the mean is subtracted: logs of older releases hold any float
        bounded = min(max(event_value, -MAX_EVENT_VALUE), MAX_EVENT_VALUE)
        scaled = (bounded - self.value_mean) / self.value_std
        return min(max(scaled, -VALUE_LIMIT), VALUE_LIMIT)

    def vocabulary_hash(self) -> str:
        """Hash what the rows mean: equal hashes mean that the rows of two models may be compared."""
        return _hash(self.item_ids, self.event_types)


def _hash(item_ids: Iterable[str], event_types: Iterable[str]) -> str:
    return hashlib.sha256(msgspec.json.encode([list(item_ids), list(event_types)])).hexdigest()
