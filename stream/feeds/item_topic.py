"""Records of the `items` topic: what each says of its item, and dead letters for those that can't be used.

Every worker reads the whole topic, and any may be asked for it again from its start. So an item's facts are what its
last record says, whatever came before: compaction keeps that one alone. A last record that can't be used says nothing:
the item is then as one without facts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import aiokafka
from aiokafka import TopicPartition

from models.decoding import BadRecord, check_id
from models.facts.records import Item, decode_item
from models.facts.schema import Schema
from stream.faust_patches.changelog import Changelog
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.source.record_batches import require_readable
from stream.stages.dead_letters import send_dead_letters
from stream.stages.headers import check_headers
from stream.stages.sending import Append
from stream.telemetry import Telemetry

MARK_KEY = b"\0items"
_MARK = struct.Struct("<Bq")  # like a state's header: a restore keeps the value with the higher number
_MARK_VERSION = 1


class ItemTopic(NamedTuple):
    """The topic, and what its readers are made with."""

    name: str
    partitions: int
    client_options: Mapping[str, Any]
    schema: Schema | None

    @property
    def tps(self) -> list[TopicPartition]:
        """Return its partitions."""
        return [TopicPartition(self.name, partition) for partition in range(self.partitions)]


def item_of(record: Record, schema: Schema | None) -> Item | None:
    """Read what a record says, None if it withdraws its item; raises BadRecord."""
    require_readable(record)
    check_headers(record.headers)
    item_id = _id_of(record)
    if record.value is None:
        return None
    item = decode_item(record.value, schema)
    if item.item_id != item_id:
        raise BadRecord("bad_id", f"item_id {item.item_id[:40]!r} under the key {item_id[:40]!r}: send it as the key")
    return item


def _id_of(record: Record) -> str:
    try:
        item_id = (record.key or b"").decode()
    except UnicodeDecodeError:
        raise BadRecord("bad_id", "the key is not UTF-8: it must be the item_id") from None
    check_id("the key", item_id)
    return item_id


def changes_of(records: Iterable[Record], schema: Schema | None) -> dict[str, Item | None]:
    """Return what the last record of each item says."""
    changes: dict[str, Item | None] = {}
    for record in records:
        with suppress(BadRecord):
            item_id = _id_of(record)
            changes[item_id] = Item(item_id)  # what a bad record comes to
            changes[item_id] = item_of(record, schema)
    return changes


class BadItems:
    """Sends dead letters for records that can't be used, for all workers: each for its own partitions.

    Up to where that is done stands beside the items' states, so a partition's next owner goes on from there. A worker
    that is killed between a dead letter and this mark sends it again.
    """

    def __init__(
        self, topic: ItemTopic, dead_letters: str, changelog: Changelog, partitions: int, telemetry: Telemetry
    ) -> None:
        """Take the changelog of items' states, which are kept by so many partitions."""
        self._topic = topic
        self._dead_letters = dead_letters
        self._changelog = changelog
        self._partitions = partitions
        self._telemetry = telemetry

    async def send_new(self, producer: aiokafka.AIOKafkaProducer) -> None:
        """Send those that came to the worker's own partitions since the last call; raises KafkaError or NotSent."""
        async with self._changelog.lock:  # a restore may close the stores
            done = {tp: self._done(tp) for tp in self._topic.tps if self._is_own(tp)}
        if not done:
            return
        async with log_reader(self._topic.client_options, committed=True) as reader:
            begins, ends = await reader.beginning_offsets(list(done)), await reader.end_offsets(list(done))
            # a topic that was made again ends before the mark
            stretches = {
                tp: (begins[tp] if at > ends[tp] else max(at, begins[tp]), ends[tp]) for tp, at in done.items()
            }
            async for _, records in read_stretch(reader, stretches, unreadable=True):
                await self._send(producer, records)
        appends: list[Append] = []
        async with self._changelog.lock:
            for tp, end in ends.items():
                if end != done[tp] and self._is_own(tp):
                    partition, key = self._place(tp)
                    appends += await self._changelog.write(producer, partition, {key: _MARK.pack(_MARK_VERSION, end)})
        await self._changelog.confirm(producer, appends)

    async def _send(self, producer: aiokafka.AIOKafkaProducer, records: Iterable[Record]) -> None:
        rejects: list[tuple[Record, BadRecord]] = []
        for record in records:
            try:
                item_of(record, self._topic.schema)
            except BadRecord as error:
                rejects.append((record, error))
        for sent in await send_dead_letters(producer, self._dead_letters, rejects):
            await sent
        self._telemetry.refused(error for _, error in rejects)

    def _place(self, tp: TopicPartition) -> tuple[int, bytes]:
        """Return the store partition and the key of a partition's mark."""
        return tp.partition % self._partitions, MARK_KEY + b"/%d" % tp.partition

    def _is_own(self, tp: TopicPartition) -> bool:
        return tp.partition % self._partitions in self._changelog.last_known

    def _done(self, tp: TopicPartition) -> int:
        partition, key = self._place(tp)
        (value,) = self._changelog.read(partition, [key])
        return 0 if value is None else int(_MARK.unpack(value)[1])
