"""The `signals` topic: what goes out on it, and what another worker wrote there, which goes out anew.

A worker that slept for longer than its session may wake up with records on their way. On a changelog they are merged by
applied offset; here the last record of an item is what every worker takes and what compaction keeps, so a stale one
would stand until the item occurs again. The partition's owner sends it anew; if that worker is gone before it has
looked, the next owner finds it, by comparing all that the partition holds with its store.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka import TopicPartition

from stream.changelog import Changelog
from stream.log_reader import log_reader, read_stretch
from stream.sending import Append, append

Records = list[tuple[bytes, bytes]]
SLICE = 128  # items compared at once, some 10 ms: a batch of events waits for no more
log = logging.getLogger(__name__)


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
        self._next: dict[int, int] = {}  # by partition, from our first append or look on: where our next record goes
        self._compared: set[int] = set()  # the partitions where what was written before we came is known to be right

    async def append(self, producer: aiokafka.AIOKafkaProducer, partition: int, records: Records) -> list[Append]:
        """Queue records; under the changelog's lock, so that they follow one another as states do."""
        return await append(producer, self._topic, partition, records)

    async def confirm(self, producer: aiokafka.AIOKafkaProducer, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in order, and send anew what others have written before them."""
        self._forget_lost()
        waiting = deque(appends)
        while waiting:
            sent = waiting.popleft()
            base: int = (await sent.acked).offset
            expected = self._next.get(sent.partition, base)
            self._next[sent.partition] = max(expected, base + sent.records)
            if base > expected:
                waiting.extend(await self._send_anew(producer, sent.partition, expected, base))

    async def look_for_foreign(self, producer: aiokafka.AIOKafkaProducer, busy: Callable[[], bool]) -> None:
        """Find records of others where we have not appended since; `busy` while ours are on their way."""
        self._forget_lost()
        for partition in sorted(self._changelog.last_known.keys() - self._compared):
            await self._compare(producer, partition)
        ours: Collection[int] = self._next.keys() & self._changelog.last_known.keys()
        if not ours or busy():
            return
        async with log_reader(self._client_options) as reader:
            ends = await reader.end_offsets([TopicPartition(self._topic, partition) for partition in ours])
        for tp, end in ends.items():
            first = self._next.get(tp.partition, end)
            if first < end:
                self._next[tp.partition] = end
                await self.confirm(producer, await self._send_anew(producer, tp.partition, first, end))

    def _forget_lost(self) -> None:
        """Forget partitions that are not ours any more: what is written there now is for their owner to say."""
        for partition in self._next.keys() - self._changelog.last_known.keys():
            del self._next[partition]
        self._compared &= self._changelog.last_known.keys()

    async def _compare(self, producer: aiokafka.AIOKafkaProducer, partition: int) -> None:
        """Send anew each item of a partition whose last record is not what the store has."""
        tp = TopicPartition(self._topic, partition)
        last: dict[bytes, int] = {}  # hashes: the values of a whole partition can be too many to hold
        async with log_reader(self._client_options) as reader:
            begins, ends = await reader.beginning_offsets([tp]), await reader.end_offsets([tp])
            # from here on an ack tells; an append of ours may have been acked while we asked
            end = max(ends[tp], self._next.setdefault(partition, ends[tp]))
            async for _, records in read_stretch(reader, {tp: (begins[tp], end)}):
                last.update((record.key, hash(record.value)) for record in records if record.key)
        keys, appends, stale = list(last), list[Append](), 0
        for begin in range(0, len(keys), SLICE):
            async with self._changelog.lock:
                if partition not in self._changelog.last_known:
                    return
                held = await self._current(partition, keys[begin : begin + SLICE])
                differing = [(key, value) for key, value in held if hash(value) != last[key]]
                appends += await self.append(producer, partition, differing)
                stale += len(differing)
        self._compared.add(partition)
        if stale:  # also those that we have counted while we read: harmless twice
            log.warning("signals were not those of the store and are sent anew partition=%d items=%d", partition, stale)
        await self.confirm(producer, appends)

    async def _send_anew(
        self, producer: aiokafka.AIOKafkaProducer, partition: int, first: int, end: int
    ) -> list[Append]:
        items: dict[bytes, None] = {}
        async with log_reader(self._client_options) as reader:
            stretch = {TopicPartition(self._topic, partition): (first, end)}
            async for _, records in read_stretch(reader, stretch):
                items.update((record.key, None) for record in records if record.key)
        log.warning("another worker wrote signals partition=%d from=%d items=%d", partition, first, len(items))
        async with self._changelog.lock:
            if partition not in self._changelog.last_known:
                return []
            return await self.append(producer, partition, await self._current(partition, list(items)))
