"""Reading topics whole, and waiting until the workers have done what the log asks of them up to a cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, NoError, for_code

from stream.commands.failures import Failure
from stream.source.log_reader import Record, log_reader, read_stretch

STILL_S = 15.0  # without a commit for so long, workers stand: what is missing then is lost. A restore may take some
EVERY_S = 0.25


@dataclass
class Log:
    """A topic's records by partition, and the offsets between which they were read."""

    records: dict[int, list[Record]] = field(default_factory=dict)
    begins: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    """By partition: how often its log began again; 0 is left out."""

    @property
    def trimmed(self) -> set[int]:
        """Name the partitions whose first records are gone."""
        return {partition for partition, begin in self.begins.items() if begin > 0} | self.epochs.keys()

    def has_holes(self, partition: int) -> bool:
        """Tell whether compaction or a retention time has taken records."""
        return len(self.records.get(partition, ())) < self.ends.get(partition, 0)


@dataclass
class Cut:
    """Up to where the inputs are judged: everything before must have led to all that it has to."""

    ends: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    running: bool = False  # whether workers were at work when the audit began
    behind: list[TopicPartition] = field(default_factory=list)

    def end(self, topic: str, partition: int) -> int:
        """Give the first offset of a partition that is not judged."""
        return self.ends.get(TopicPartition(topic, partition), 0)

    def committed_of(self, topic: str) -> dict[int, int]:
        """Give the offsets of a topic that the group has committed, by partition."""
        return {tp.partition: offset for tp, offset in self.committed.items() if tp.topic == topic}

    def before(self, record: Record) -> bool:
        """Tell whether a record is judged."""
        return bool(record.offset < self.end(record.topic, record.partition))


async def read_topic(options: Mapping[str, Any], topic: str) -> Log:
    """Read all partitions of a topic as they are now."""
    log = Log()
    async with log_reader(options, committed=True) as reader:
        tps = await _partitions(reader, topic)
        begins, ends = await reader.beginning_offsets(tps), await reader.end_offsets(tps)
        for tp in tps:
            log.records[tp.partition] = []
            log.begins[tp.partition], log.ends[tp.partition] = begins[tp], ends[tp]
        stretches = {tp: (begins[tp], ends[tp]) for tp in tps}
        async for tp, records in read_stretch(reader, stretches, unreadable=True):
            log.records[tp.partition].extend(records)
    return log


async def cut_at(options: Mapping[str, Any], topics: Iterable[str]) -> dict[TopicPartition, int]:
    """Ask where the topics end now."""
    async with log_reader(options, committed=True) as reader:
        tps = [tp for topic in topics for tp in await _partitions(reader, topic)]
        ends: dict[TopicPartition, int] = await reader.end_offsets(tps)
        begins = await reader.beginning_offsets(tps)
    return {tp: end for tp, end in ends.items() if end > begins[tp]}


async def reach(options: Mapping[str, Any], group: str, topics: Sequence[str]) -> Cut:
    """Take a cut of input topics and wait until the group has committed it, or has no member, or stands still."""
    cut = Cut(ends=await cut_at(options, topics))
    async with _admin(options) as admin:
        since = time.monotonic()
        while True:
            committed = await _committed(admin, group)
            if committed != cut.committed:
                cut.committed, since = committed, time.monotonic()
            members = await _members(admin, group)
            cut.running |= members
            cut.behind = [tp for tp, end in cut.ends.items() if committed.get(tp, 0) < end]
            if not cut.behind or not members or time.monotonic() - since > STILL_S:
                return cut
            await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def _admin(options: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**options)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def _committed(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    held = await admin.list_consumer_group_offsets(group)
    return {tp: position.offset for tp, position in held.items()}


async def _members(admin: AIOKafkaAdminClient, group: str) -> bool:
    (answer,) = await admin.describe_consumer_groups([group])
    (described,) = answer.to_object()["groups"]
    refused = for_code(described["error_code"])
    if refused not in (NoError, GroupIdNotFound):
        raise Failure(
            f"the group {group} can't be described: {refused.__name__}",
            "the audit's user must be allowed to read all topics and to describe the group",
        )
    return bool(described["members"])


async def _partitions(reader: Any, topic: str) -> list[TopicPartition]:
    # a group-less client knows the metadata only of topics that it has asked for
    await reader._client.add_topic(topic)
    return [TopicPartition(topic, partition) for partition in sorted(reader.partitions_for_topic(topic) or ())]
