"""The `signals` topic: send items' signals, and republish those that another worker's stale records hide.

A worker that paused for longer than its session timeout may have records in flight. A changelog merges them by applied
offset. Here every worker takes the last record of an item, and compaction keeps it, so a stale one would stay until the
item occurs again. So the owner of a partition compares all records that it may not have written with its store: those
that its acks do not cover and, after an assignment, all records of the partition.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka import TopicPartition

from stream.faust_patches.changelog import Changelog
from stream.source.log_reader import log_reader, read_stretch
from stream.stages.sending import Append, append

Records = list[tuple[bytes, bytes]]
SLICE = 128  # items compared at a time, about 10 ms: a batch of events waits no longer
log = logging.getLogger(__name__)


class OwnWrites:
    """The offset up to which a partition is `checked`: each earlier record is ours or was compared with the store."""

    def __init__(self) -> None:
        """Start unchecked."""
        self.checked = 0
        self._beyond: dict[int, int] = {}  # begin -> end of own appends after a gap

    def acked(self, base: int, records: int) -> None:
        """Add an acked append of ours. It extends `checked` if no other record lies between."""
        if base >= self.checked:
            self._beyond[base] = base + records
            self.compared(self.checked)

    def compared(self, end: int) -> None:
        """Record that all records before `end` were compared. Own appends that follow directly are checked, too."""
        self.checked = max(self.checked, end)
        while self.checked in self._beyond:
            self.checked = self._beyond.pop(self.checked)
        self._beyond = {base: after for base, after in self._beyond.items() if base > self.checked}


class SignalTopic:
    """Sends signals and finds foreign records: an ack's offset shows whether another record came between appends."""

    def __init__(
        self,
        topic: str,
        client_options: Mapping[str, Any],
        changelog: Changelog,
        current: Callable[[int, list[bytes]], Awaitable[Records]],
    ) -> None:
        """`current` returns items' records from a partition's store."""
        self._topic = topic
        self._client_options = client_options
        self._changelog = changelog
        self._current = current
        self._writes: dict[int, OwnWrites] = {}  # by partition, from the first check on

    async def append(self, producer: aiokafka.AIOKafkaProducer, partition: int, records: Records) -> list[Append]:
        """Queue records. The caller holds the changelog's lock, so that they are in the order of the states."""
        return await append(producer, self._topic, partition, records)

    async def confirm(self, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in order."""
        self._forget_lost()
        for sent in appends:
            base: int = (await sent.acked).offset
            if sent.partition in self._writes:
                self._writes[sent.partition].acked(base, sent.records)

    async def check_foreign(self, producer: aiokafka.AIOKafkaProducer) -> None:
        """Republish items whose last record is not that of the store."""
        self._forget_lost()
        tps = [TopicPartition(self._topic, partition) for partition in sorted(self._changelog.last_known)]
        if not tps:
            return
        # before the ends are read: records that are acked from now on may lie after them
        writes = [self._writes.setdefault(tp.partition, OwnWrites()) for tp in tps]
        async with log_reader(self._client_options) as reader:
            begins, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
        for tp, ours in zip(tps, writes, strict=True):
            first = max(begins[tp], ours.checked)
            if first >= ends[tp] or await self._compare(producer, tp, first, ends[tp]):
                ours.compared(ends[tp])

    def _forget_lost(self) -> None:
        """Forget partitions that another worker owns now."""
        for partition in self._writes.keys() - self._changelog.last_known.keys():
            del self._writes[partition]

    async def _compare(self, producer: aiokafka.AIOKafkaProducer, tp: TopicPartition, first: int, end: int) -> bool:
        """Republish items whose last record in [first, end) differs from the store; False if the partition is lost."""
        last: dict[bytes, int] = {}  # hashes: the values of a whole partition can be too many to hold
        async with log_reader(self._client_options) as reader:
            async for _, records in read_stretch(reader, {tp: (first, end)}):
                last.update((record.key, hash(record.value)) for record in records if record.key)
        keys, stale = list(last), 0
        for begin in range(0, len(keys), SLICE):
            async with self._changelog.lock:
                if tp.partition not in self._changelog.last_known:
                    return False
                held = await self._current(tp.partition, keys[begin : begin + SLICE])
                differing = [(key, value) for key, value in held if hash(value) != last[key]]
                appends = await self.append(producer, tp.partition, differing)
            await self.confirm(appends)
            stale += len(differing)
        if stale:  # some may be our own newer ones, which are harmless twice
            log.warning("stale item signals republished partition=%d from=%d items=%d", tp.partition, first, stale)
        return True
