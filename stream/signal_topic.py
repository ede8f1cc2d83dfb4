"""The `signals` topic: what goes out on it, and what another worker wrote there, which goes out anew.

A worker that slept for longer than its session may wake up with records on their way. On a changelog they are merged by
applied offset; here the last record of an item is what every worker takes and what compaction keeps, so a stale one
would stand until the item occurs again.
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
        self._next: dict[int, int] = {}  # by partition, from our first append on: where our next record goes

    async def append(self, producer: aiokafka.AIOKafkaProducer, partition: int, records: Records) -> list[Append]:
        """Queue records; under the changelog's lock, so that they follow one another as states do."""
        return await append(producer, self._topic, partition, records)

    async def confirm(self, producer: aiokafka.AIOKafkaProducer, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in order, and send anew what others have written before them."""
        for partition in self._next.keys() - self._changelog.last_known.keys():
            del self._next[partition]  # not ours any more: what is written there now is for its owner to say
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
