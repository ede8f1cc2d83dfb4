"""Which items were available at each moment: the records of `items` up to the offsets that a list names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from models.facts.schema import Schema
from models.recommending.availability import Availability
from stream.audit.lists import Given
from stream.audit.reading import Log
from stream.audit.snapshots import whole_from
from stream.feeds.item_topic import changes_of

IN_FLIGHT_S = 60.0  # workers take a record over within a second; what is older than this was surely known


class _Change(NamedTuple):
    """A record that makes an item available, or unavailable."""

    offset: int
    time_s: float  # by the broker's clock
    item_id: str
    available: bool


class ItemHistory:
    """What `items` has had at each moment, as far as compaction has left it."""

    def __init__(self, log: Log, schema: Schema | None) -> None:
        """Read the topic; `schema` is the workers'."""
        partitions = sorted(log.records)
        self._whole_from = [whole_from(log.records[p], log.begins[p], log.ends[p]) for p in partitions]
        self._changes: list[list[_Change]] = []
        for partition in partitions:
            held: dict[str, bool] = {}
            changes: list[_Change] = []
            for record in log.records[partition]:
                for item_id, item in changes_of([record], schema).items():
                    available = item is not None and item.available
                    if held.get(item_id, True) != available:
                        changes.append(_Change(record.offset, record.timestamp / 1000, item_id, available))
                    held[item_id] = available
            self._changes.append(changes)
        self._at = lru_cache(maxsize=1000)(self._read)

    def why_gone(self, offsets: Sequence[int]) -> str:
        """Return why it is not known what was available at these offsets, "" if it is; no offsets name no records."""
        if len(offsets) not in (0, len(self._changes)):
            return f"it names {len(offsets)} partitions of `items`, which has {len(self._changes)}"
        if any(offset < first for offset, first in zip(offsets, self._whole_from, strict=False)):
            return "compaction of `items` has taken records that were in use then"
        return ""

    def at(self, offsets: Sequence[int]) -> Availability:
        """Return what was available at offsets."""
        return self._at(tuple(offsets))

    def why_stale(self, given: Given, offsets: Sequence[int]) -> str:
        """Return which change a list must have known and did not, "" if there is none."""
        known = offsets or [0] * len(self._changes)
        for partition, (changes, offset) in enumerate(zip(self._changes, known, strict=True)):
            surely = bisect_left(changes, given.generated_at - IN_FLIGHT_S, key=lambda change: change.time_s)
            if surely and changes[surely - 1].offset >= offset:
                missed = changes[surely - 1]
                state = "available" if missed.available else "unavailable"
                return f"it does not know that item {missed.item_id} is {state} since {partition}/{missed.offset}"
        return ""

    def _read(self, offsets: tuple[int, ...]) -> Availability:
        unavailable: set[str] = set()
        for changes, offset in zip(self._changes, offsets, strict=False):
            for change in changes[: bisect_left(changes, offset, key=lambda change: change.offset)]:
                (unavailable.discard if change.available else unavailable.add)(change.item_id)
        return Availability(unavailable, offsets)
