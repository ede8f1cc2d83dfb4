"""The signals as a worker had them for a list: the records of `signals` up to the offsets that the list names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from models.items import signals
from models.items.signal_reading import SignalReading
from models.items.signal_table import SignalTable
from models.items.signals import BadSignals, SignalRules
from models.recommending.scoring import Moment
from models.records import SignalSnapshot
from models.weights import ServingModel
from stream.audit.reading import Log
from stream.source.log_reader import Record

_offset = attrgetter("offset")


class _Partition(NamedTuple):
    records: list[Record]
    end: int
    whole_from: int  # tables up to this offset or beyond can be made again


class SignalHistory:
    """What `signals` has had at each moment, as far as compaction has left it."""

    def __init__(self, log: Log, rules: SignalRules) -> None:
        self.rules = rules
        self._partitions = [
            _Partition(records, log.ends[partition], whole_from(records, log.begins[partition], log.ends[partition]))
            for partition, records in sorted(log.records.items())
        ]

    def why_gone(self, snapshot: SignalSnapshot) -> str:
        """Say why a table can't be made again, "" if it can."""
        for offsets in (snapshot.offsets, snapshot.newer_offsets or snapshot.offsets):
            if len(offsets) != len(self._partitions):
                return f"it has {len(offsets)} partitions, the topic {len(self._partitions)}"
            for offset, partition in zip(offsets, self._partitions, strict=True):
                if offset < partition.whole_from:
                    return "compaction of `signals` has taken records that were in use then"
                if offset > partition.end:
                    return "it names records that the topic does not have"
        return ""

    def moments(self, model: ServingModel, snapshots: Sequence[SignalSnapshot]) -> Iterator[tuple[int, Moment]]:
        """Make the moments of a model's snapshots -> (index, moment), each of use until the next one is asked for."""
        for index, table, at in self._tables(model.catalogue.item_ids, snapshots):
            snapshot = snapshots[index]
            moment = Moment.of(model, table, snapshot.at)
            if snapshot.newer_offsets:
                self._put(table, at, snapshot.newer_offsets)
            yield index, moment

    def readings(self, snapshots: Sequence[SignalSnapshot]) -> Iterator[tuple[int, SignalReading]]:
        """Make the readings of snapshots that no model had a part in -> (index, reading), of use as long."""
        for index, table, _ in self._tables((), snapshots):
            yield index, SignalReading(table, snapshots[index].at)

    def _tables(
        self, item_ids: Sequence[str], snapshots: Sequence[SignalSnapshot]
    ) -> Iterator[tuple[int, SignalTable, list[int]]]:
        """Make a table up to each snapshot's offsets -> (index, table, offsets, which `_put` moves on)."""
        table, at = SignalTable(self.rules, item_ids), [0] * len(self._partitions)
        for index in sorted(range(len(snapshots)), key=lambda number: sum(snapshots[number].offsets)):
            snapshot = snapshots[index]
            if any(before > offset for before, offset in zip(at, snapshot.offsets, strict=True)):
                # of another worker, that is ahead in one partition and behind in the other
                table, at = SignalTable(self.rules, item_ids), [0] * len(self._partitions)
            self._put(table, at, snapshot.offsets)
            yield index, table, at

    def _put(self, table: SignalTable, at: list[int], offsets: Sequence[int]) -> None:
        newest: dict[bytes, bytes] = {}
        for number, partition in enumerate(self._partitions):
            first = bisect_left(partition.records, at[number], key=_offset)
            for record in partition.records[first : bisect_left(partition.records, offsets[number], key=_offset)]:
                if record.key and record.value:
                    newest[record.key] = record.value
            at[number] = offsets[number]
        records = []
        for value in newest.values():
            try:
                records.append(signals.decode_record(value))
            except BadSignals:
                continue  # workers ignore it, too
        table.put(records)


def whole_from(records: Sequence[Record], begin: int, end: int) -> int:
    """Find from which offset on the newest record of every item is still there.

    Compaction up to an offset removes what was written over before that offset, so a table up to there or beyond
    misses nothing. It has not come further than the first record whose item has an earlier record.
    """
    if begin == 0 and len(records) == end:
        return 0
    seen: set[bytes | None] = set()
    for record in records:
        if record.key in seen:
            return int(record.offset)
        seen.add(record.key)
    return end
