"""The `signals` topic: what goes out on it, and what another worker wrote there, which goes out anew.

A worker that slept for longer than its session may wake up with records on their way. On a changelog they are merged by
applied offset; here the last record of an item is what every worker takes and what compaction keeps, so a stale one
would stand until the item occurs again. So the owner of a partition compares with its store what it is not sure to have
written: what its acks leave out, and of a partition that comes to it all that is there, as the one before may not have
lived to do so.
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
SLICE = 128  # items compared at once, some 10 ms: a batch of events waits for no more
log = logging.getLogger(__name__)


class OwnWrites:
    """Up to where a partition is `sure`: what others wrote before it has been compared, all else is ours."""

    def __init__(self) -> None:
        """Begin with nothing that is known."""
        self.sure = 0
        self._beyond: dict[int, int] = {}  # where appends of ours begin that do not follow on -> where they end

    def acked(self, base: int, records: int) -> None:
        """Take in where an append of ours went; if somebody came between, that has to be compared first."""
        if base >= self.sure:
            self._beyond[base] = base + records
            self.compared(self.sure)

    def compared(self, end: int) -> None:
        """Say that all before `end` has been compared with the store: what of ours follows at once is sure, too."""
        self.sure = max(self.sure, end)
        while self.sure in self._beyond:
            self.sure = self._beyond.pop(self.sure)
        self._beyond = {base: after for base, after in self._beyond.items() if base > self.sure}


class SignalTopic:
    """Appends of ours follow one another in a partition: an ack tells by its offset whether somebody came between."""

    def __init__(
        self,
        topic: str,
        client_options: Mapping[str, Any],
        changelog: Changelog,
        current: Callable[[int, list[bytes]], Awaitable[Records]],
    ) -> None:
        """`current` gives the records of some items as the store of a partition has them."""
        self._topic = topic
        self._client_options = client_options
        self._changelog = changelog
        self._current = current
        self._writes: dict[int, OwnWrites] = {}  # by partition, from our first look on

    async def append(self, producer: aiokafka.AIOKafkaProducer, partition: int, records: Records) -> list[Append]:
        """Queue records; under the changelog's lock, so that they follow one another as states do."""
        return await append(producer, self._topic, partition, records)

    async def confirm(self, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in order."""
        self._forget_lost()
        for sent in appends:
            base: int = (await sent.acked).offset
            if sent.partition in self._writes:
                self._writes[sent.partition].acked(base, sent.records)

    async def check_foreign(self, producer: aiokafka.AIOKafkaProducer) -> None:
        """Send anew what others have written over, or may have before a partition came to us."""
        self._forget_lost()
        tps = [TopicPartition(self._topic, partition) for partition in sorted(self._changelog.last_known)]
        if not tps:
            return
        # before the ends are asked for: what is acked from now on may lie behind them
        writes = [self._writes.setdefault(tp.partition, OwnWrites()) for tp in tps]
        async with log_reader(self._client_options) as reader:
            begins, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
        for tp, ours in zip(tps, writes, strict=True):
            first = max(begins[tp], ours.sure)
            if first >= ends[tp] or await self._compare(producer, tp, first, ends[tp]):
                ours.compared(ends[tp])

    def _forget_lost(self) -> None:
        """Forget partitions that are not ours any more: what is written there now is for their owner to say."""
        for partition in self._writes.keys() - self._changelog.last_known.keys():
            del self._writes[partition]

    async def _compare(self, producer: aiokafka.AIOKafkaProducer, tp: TopicPartition, first: int, end: int) -> bool:
        """Send anew the items whose last record in [first, end) is not what the store has; False if it is gone."""
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
        if stale:  # some may be what we have counted meanwhile: harmless twice
            log.warning("signals were not those of the store partition=%d from=%d items=%d", tp.partition, first, stale)
        return True
