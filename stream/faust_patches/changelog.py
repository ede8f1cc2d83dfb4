"""Write states to RocksDB and to the changelog, and find records that another worker wrote there.

The defects in Faust 0.15.3:

- each table write is its own changelog record, 300-400 µs (`Collection.send_changelog`, tables/base.py). Here a
  partition's states are one `WriteBatch` and one record batch;
- a refused changelog record logs one warning, and the source offset is committed anyway (`Topic._on_published`,
  topics.py). Here every append is awaited;
- the offset of any own append becomes the persisted offset (`Collection._on_changelog_sent`, tables/base.py), even if
  another worker that lost the partition appended before it. The next restore then skips that worker's records. Here an
  append must directly follow our last one. If not, the records between them are read and merged by applied offset, and
  the values that they had overwritten are republished.

An append stays pending until its ack is settled, in the order of sending, even if its batch was requeued. So records
between two appends can be distinguished: own records without an ack, or another worker's records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiokafka
import rocksdict
from aiokafka import TopicPartition

from stream.faust_patches.stores import TableStores
from stream.source.log_reader import Record, log_reader, read_stretch
from stream.stages.sending import Append, append

log = logging.getLogger(__name__)

# An append without an ack may still arrive from a broker's queue: far longer than the producer's timeout.
UNACKED_KEPT_S = 600.0


@dataclass(frozen=True, eq=False)
class OwnAppend:
    """An own append whose ack is not settled yet, with its values."""

    sent: Append
    values: Mapping[bytes, bytes]


class Changelog:
    """One table's stores and the changelog topic that is their durable copy.

    Arguments:
        table: the Faust table; keys and values are raw bytes.
        applied_offset: reads the offset of the last applied event from a value. Of two values of one key the one with
            the higher offset is right, in whatever order the changelog has them.
        client_options: for the reader of records that may be another worker's.
        on_foreign: called with the number of records that another worker wrote.
    """

    def __init__(
        self,
        table: Any,
        applied_offset: Callable[[bytes], int],
        client_options: Mapping[str, Any],
        on_foreign: Callable[[int], None],
    ) -> None:
        self.table = table
        self.stores = TableStores(table)
        self.topic: str = table.changelog_topic_name
        self._applied_offset = applied_offset
        self._client_options = client_options
        self._on_foreign = on_foreign
        # held from reading a value until its new value is queued: the last value queued must be the newest
        self.lock = asyncio.Lock()
        self.last_known: dict[int, int] = {}  # per partition: up to here every record is ours, or read and merged
        self._pending: dict[int, deque[OwnAppend]] = {}  # per partition, in the order of sending
        # per partition: hashes of sent (key, value) pairs without an ack -> time.monotonic() of sending
        self._unacked: dict[int, dict[int, float]] = {}
        self._taken_over: dict[int, set[bytes]] = {}  # per partition: keys whose value a merge took from another worker

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Read the values of many keys at once; raises StoreDamaged."""
        return self.stores.get(partition, keys)

    async def write(
        self, producer: aiokafka.AIOKafkaProducer, partition: int, values: Mapping[bytes, bytes]
    ) -> list[Append]:
        """Write values to the store, then queue them for the changelog. The caller holds `lock`.

        Redelivery repairs a store that is ahead of the changelog. If a merge has taken a newer value of another worker
        since ours was decided, both keep the newer one.
        """
        values = self._without_outdated(partition, values)
        if not values:
            return []
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        self.stores.write(partition, batch)
        return await self._append(producer, partition, values)

    def _without_outdated(self, partition: int, values: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
        taken_over = self._taken_over.get(partition)
        if not taken_over or not (keys := [key for key in values if key in taken_over]):
            return values
        kept = dict(values)
        for key, held in zip(keys, self.stores.get(partition, keys), strict=True):
            if held is not None and self._applied_offset(held) > self._applied_offset(values[key]):
                del kept[key]
            else:
                taken_over.discard(key)
        return kept

    async def _append(
        self, producer: aiokafka.AIOKafkaProducer, partition: int, values: Mapping[bytes, bytes]
    ) -> list[Append]:
        # before sending: after an error in the middle, nobody awaits the acks of records already sent
        now = time.monotonic()
        self._unacked.setdefault(partition, {}).update(dict.fromkeys(map(hash, values.items()), now))
        appends = await append(producer, self.topic, partition, values.items())
        pairs = iter(values.items())
        for sent in appends:
            carried = dict(pair for pair, _ in zip(pairs, range(sent.records), strict=False))
            self._pending.setdefault(partition, deque()).append(OwnAppend(sent, carried))
        return appends

    async def confirm(self, producer: aiokafka.AIOKafkaProducer, appends: Iterable[Append]) -> None:
        """Await the broker's acks in the order of sending, and advance the persisted offset over our records."""
        waiting = deque(appends)
        while waiting:
            sent = waiting.popleft()
            waiting.extend(await self._settle_up_to(producer, sent))
            await sent.acked  # done; raises the send error, if there was one

    async def _settle_up_to(self, producer: aiokafka.AIOKafkaProducer, sent: Append) -> list[Append]:
        """Settle an append and all earlier ones to its partition, including those of requeued batches.

        Returns the appends of republished values.
        """
        republished: list[Append] = []
        while any(own.sent is sent for own in self._pending.get(sent.partition, ())):
            first = self._pending[sent.partition][0]
            await asyncio.wait([first.sent.acked])
            if self._follows(first):
                self._settle(first)
                continue
            async with self.lock:
                if self._is_first(first):  # a restore or another confirm may have run while we waited for the lock
                    republished += await self._settle_after_gap(producer, first)
        return republished

    def _is_first(self, own: OwnAppend) -> bool:
        pending = self._pending.get(own.sent.partition)
        return bool(pending) and cast("deque[OwnAppend]", pending)[0] is own

    def _follows(self, own: OwnAppend) -> bool:
        """Return whether no record needs a check before an append: it failed, or directly follows our last one."""
        if not self._is_first(own):
            return True
        base = _base_offset(own.sent)
        return base is None or base <= self.last_known.get(own.sent.partition, -1) + 1

    def _settle(self, own: OwnAppend) -> None:
        if not self._is_first(own):
            return
        partition, base = own.sent.partition, _base_offset(own.sent)
        if base is None:
            self._pending[partition].popleft()
            return  # unacked: it may have arrived, or still arrive
        if partition in self.last_known and base > self.last_known[partition]:
            self.advance(partition, base + own.sent.records - 1)
        # only now: if the store fails, the append must still be settled
        self._pending[partition].popleft()
        unacked = self._unacked[partition]
        for pair in own.values.items():
            unacked.pop(hash(pair), None)

    async def _settle_after_gap(self, producer: aiokafka.AIOKafkaProducer, own: OwnAppend) -> list[Append]:
        """Read and merge the records between our last append and this one; returns the republished appends.

        The caller holds `lock`.
        """
        partition, base = own.sent.partition, _base_offset(own.sent)
        if base is not None and partition in self.last_known and base > self.last_known[partition] + 1:
            overwritten = await self._merge_gap(partition, self.last_known[partition] + 1, base)
            self._settle(own)
            return await self.republish(producer, partition, overwritten, after=own)
        self._settle(own)
        return []

    async def republish(
        self,
        producer: aiokafka.AIOKafkaProducer,
        partition: int,
        overwritten: Mapping[bytes, bytes],
        *,
        after: OwnAppend | None = None,
    ) -> list[Append]:
        """Append values that stale records hide, except those that a later append of ours carries anyway."""
        later = [*([after] if after else []), *self._pending.get(partition, ())]
        carried = {key for own in later if not _failed(own.sent) for key in own.values}
        return await self._append(producer, partition, {k: v for k, v in overwritten.items() if k not in carried})

    async def settled(self, partitions: Iterable[int]) -> None:
        """Wait until no own append to these partitions is in flight. The caller holds `lock`."""
        futures = [own.sent.acked for partition in partitions for own in self._pending.get(partition, ())]
        if futures:
            await asyncio.wait(futures)

    def forget(self, partition: int) -> None:
        """Forget a partition that was assigned to another worker."""
        self.last_known.pop(partition, None)
        self._pending.pop(partition, None)
        self._unacked.pop(partition, None)
        self._taken_over.pop(partition, None)
        self.stores.forget(partition)

    def restored(self, partition: int, end: int) -> None:
        """Start a partition whose store holds its changelog up to `end`."""
        self.last_known[partition] = end - 1
        self._taken_over.pop(partition, None)

    def advance(self, partition: int, offset: int) -> None:
        """Record that a store holds all of its changelog up to an offset."""
        self.stores.set_offset(partition, offset)
        self.last_known[partition] = offset

    def merge(self, partition: int, records: Iterable[Record], overwritten: dict[bytes, bytes]) -> list[bytes]:
        """Merge changelog records into a store, the newer value wins.

        Adds values that stale records hide to `overwritten`. Returns the keys whose value changed.
        """
        records = list(records)
        keys = list(dict.fromkeys(cast(bytes, record.key) for record in records))
        before = dict(zip(keys, self.stores.get(partition, keys), strict=True))
        newest, unacked = dict(before), self._unacked.get(partition, {})
        for record in records:
            key, value = cast(bytes, record.key), record.value
            held = newest[key]
            if value is not None and held is not None and held != value:
                before_it, offset = self._applied_offset(held), self._applied_offset(value)
                # of two values with one offset the later is right, and of our own the later one is in the store
                if before_it > offset or (before_it == offset and hash((key, value)) in unacked):
                    overwritten[key] = held
                    continue
            newest[key] = value
            overwritten.pop(key, None)
        changed = [key for key in keys if newest[key] != before[key]]
        if changed:
            batch = rocksdict.WriteBatch(raw_mode=True)
            for key in changed:
                if (value := newest[key]) is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            self.stores.write(partition, batch)
        return changed

    async def _merge_gap(self, partition: int, first: int, end: int) -> dict[bytes, bytes]:
        """Read and merge [first, end), which no ack of ours covers; returns the values to republish."""
        overwritten: dict[bytes, bytes] = {}
        ours = foreign = 0
        async with log_reader(self._client_options) as reader:
            async for _, records in read_stretch(reader, {TopicPartition(self.topic, partition): (first, end)}):
                others = self._others(partition, records)
                changed = self.merge(partition, records, overwritten)
                self._taken_over.setdefault(partition, set()).update(changed)
                foreign += len(others)
                ours += len(records) - len(others)
        if foreign:
            log.warning(
                "another worker wrote to our changelog topic=%s partition=%d from=%d records=%d republished=%d",
                self.topic, partition, first, foreign, len(overwritten),
            )  # fmt: skip
            self._on_foreign(foreign)
        if ours:
            log.info(
                "own changelog records found without an ack topic=%s partition=%d from=%d records=%d",
                self.topic, partition, first, ours,
            )  # fmt: skip
        return overwritten

    def _others(self, partition: int, records: Sequence[Record]) -> list[Record]:
        """Return the records that we neither sent nor already hold in the store."""
        unacked = self._unacked.get(partition, {})
        unknown = [record for record in records if hash((record.key, record.value)) not in unacked]
        keys = list(dict.fromkeys(cast(bytes, record.key) for record in unknown))
        held = dict(zip(keys, self.stores.get(partition, keys), strict=True))
        return [record for record in unknown if record.value is None or held[cast(bytes, record.key)] != record.value]

    async def check_foreign(self, producer: aiokafka.AIOKafkaProducer) -> None:
        """Find and merge another worker's records at the end of our partitions."""
        async with self.lock:
            self._forget_unacked()
            tps = []
            for partition in self.last_known:
                if all(own.sent.acked.done() for own in self._pending.get(partition, ())):
                    while pending := self._pending.get(partition):
                        await self._settle_after_gap(producer, pending[0])
                        if not all(own.sent.acked.done() for own in self._pending.get(partition, ())):
                            break  # a value was republished: its ack comes later
                    else:
                        tps.append(TopicPartition(self.topic, partition))
            if not tps:
                return
            async with log_reader(self._client_options) as reader:
                ends = await reader.end_offsets(tps)
            for tp, end in ends.items():
                first = self.last_known.get(tp.partition, end) + 1
                if first < end:
                    overwritten = await self._merge_gap(tp.partition, first, end)
                    self.advance(tp.partition, end - 1)
                    await self.republish(producer, tp.partition, overwritten)

    def _forget_unacked(self) -> None:
        before = time.monotonic() - UNACKED_KEPT_S
        for partition, unacked in self._unacked.items():
            self._unacked[partition] = {pair: sent_at for pair, sent_at in unacked.items() if sent_at > before}


def _failed(sent: Append) -> bool:
    return sent.acked.done() and _base_offset(sent) is None


def _base_offset(sent: Append) -> int | None:
    """Return the first offset of a finished append; None if it failed."""
    if sent.acked.cancelled() or sent.acked.exception() is not None:
        return None
    base: int = sent.acked.result().offset
    return base
