"""Writing states to RocksDB and to the changelog, and finding what another worker wrote there.

What it mends, and where Faust 0.15.3 has it:

- a table write is a changelog record of its own, 300-400 µs (`Collection.send_changelog`, tables/base.py): here a
  partition's states are one `WriteBatch` and one record batch;
- a changelog record that the broker refused logs one warning and the source offset is committed all the same
  (`Topic._on_published`, topics.py): here every append is awaited;
- the offset of any append of ours becomes the persisted offset (`Collection._on_changelog_sent`, tables/base.py), also
  when another worker, that believes itself the owner still, appended in between; the next restore then skips its
  records. Here an append must land right after our last one; if not, what lies between is read, merged by applied
  offset, and what it had overwritten is put back.

An append stays on the books until its ack is settled, in the order of sending, also when the batch that it was for was
given back. So what lies between two appends can be told apart: ours, whose ack never came, or another worker's.
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

# An append without an ack can still arrive, out of a broker's queue: far longer than the producer's own timeout.
UNACKED_KEPT_S = 600.0


@dataclass(frozen=True, eq=False)
class OwnAppend:
    """An append of ours whose ack is not settled yet, with what it wrote."""

    sent: Append
    values: Mapping[bytes, bytes]


class Changelog:
    """One table's stores and their durable copy.

    Arguments:
        table: the Faust table; keys and values are raw bytes.
        applied_offset: reads from a value the offset of the last event that it has applied: of two values of one key
            the one with the higher offset is right, whatever order the changelog has them in.
        client_options: for the reader of records that are not known to be ours.
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
        # held from reading a value to queueing what became of it: what is queued last must be the newest
        self.lock = asyncio.Lock()
        self.last_known: dict[int, int] = {}  # per partition: up to here every record is ours, or read and merged
        self._pending: dict[int, deque[OwnAppend]] = {}  # per partition, in the order of sending
        # per partition: (key, value) hashes of what we sent and saw no ack of -> time.monotonic() of sending
        self._unacked: dict[int, dict[int, float]] = {}
        self._taken_over: dict[int, set[bytes]] = {}  # per partition: keys whose value a merge made another worker's

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Read the values of many keys at once; raises StoreDamaged."""
        return self.stores.get(partition, keys)

    async def write(
        self, producer: aiokafka.AIOKafkaProducer, partition: int, values: Mapping[bytes, bytes]
    ) -> list[Append]:
        """Put values to the store, then queue them for the changelog; the caller holds `lock`.

        A store ahead of the changelog is mended by redelivery. Where a merge has taken in a newer value of another
        worker since ours was decided, the newer one stays, in both.
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
        # before sending: of what is sent and then cut short by an error, nobody gets to see the ack
        now = time.monotonic()
        self._unacked.setdefault(partition, {}).update(dict.fromkeys(map(hash, values.items()), now))
        appends = await append(producer, self.topic, partition, values.items())
        pairs = iter(values.items())
        for sent in appends:
            carried = dict(pair for pair, _ in zip(pairs, range(sent.records), strict=False))
            self._pending.setdefault(partition, deque()).append(OwnAppend(sent, carried))
        return appends

    async def confirm(self, producer: aiokafka.AIOKafkaProducer, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in the order of sending, and advance the persisted offset over what is ours."""
        waiting = deque(appends)
        while waiting:
            sent = waiting.popleft()
            waiting.extend(await self._settle_up_to(producer, sent))
            await sent.acked  # done; raises what kept it from being written

    async def _settle_up_to(self, producer: aiokafka.AIOKafkaProducer, sent: Append) -> list[Append]:
        """Settle an append and those sent before it to its partition, also where their batches were given back.

        Returns what was put back on the way.
        """
        put_back: list[Append] = []
        while any(own.sent is sent for own in self._pending.get(sent.partition, ())):
            first = self._pending[sent.partition][0]
            await asyncio.wait([first.sent.acked])
            if self._follows(first):
                self._settle(first)
                continue
            async with self.lock:
                if self._is_first(first):  # while we waited for the lock a restore, or another confirm, may have come
                    put_back += await self._settle_after_gap(producer, first)
        return put_back

    def _is_first(self, own: OwnAppend) -> bool:
        pending = self._pending.get(own.sent.partition)
        return bool(pending) and cast("deque[OwnAppend]", pending)[0] is own

    def _follows(self, own: OwnAppend) -> bool:
        """Tell whether an append needs no look at what lies before it: it failed, or landed right after our last."""
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
            return  # unacked: it may have arrived all the same, or still will
        if partition in self.last_known and base > self.last_known[partition]:
            self.advance(partition, base + own.sent.records - 1)
        # only now: if the store fails, the append is still to be settled
        self._pending[partition].popleft()
        unacked = self._unacked[partition]
        for pair in own.values.items():
            unacked.pop(hash(pair), None)

    async def _settle_after_gap(self, producer: aiokafka.AIOKafkaProducer, own: OwnAppend) -> list[Append]:
        """Read what lies between our last append and this one first; returns what was put back.

        The caller holds `lock`.
        """
        partition, base = own.sent.partition, _base_offset(own.sent)
        if base is not None and partition in self.last_known and base > self.last_known[partition] + 1:
            overwritten = await self._merge_gap(partition, self.last_known[partition] + 1, base)
            self._settle(own)
            return await self.put_back(producer, partition, overwritten, behind=own)
        self._settle(own)
        return []

    async def put_back(
        self,
        producer: aiokafka.AIOKafkaProducer,
        partition: int,
        overwritten: Mapping[bytes, bytes],
        *,
        behind: OwnAppend | None = None,
    ) -> list[Append]:
        """Append values that older records hide, but for those that an append of ours carries behind them anyway."""
        later = [*([behind] if behind else []), *self._pending.get(partition, ())]
        carried = {key for own in later if not _failed(own.sent) for key in own.values}
        return await self._append(producer, partition, {k: v for k, v in overwritten.items() if k not in carried})

    async def settled(self, partitions: Iterable[int]) -> None:
        """Wait until no append of ours to these partitions is on its way; the caller holds `lock`."""
        futures = [own.sent.acked for partition in partitions for own in self._pending.get(partition, ())]
        if futures:
            await asyncio.wait(futures)

    def forget(self, partition: int) -> None:
        """Close the books of a partition that is another worker's from now on."""
        self.last_known.pop(partition, None)
        self._pending.pop(partition, None)
        self._unacked.pop(partition, None)
        self._taken_over.pop(partition, None)
        self.stores.forget(partition)

    def restored(self, partition: int, end: int) -> None:
        """Begin the books of a partition whose store holds its changelog up to `end`."""
        self.last_known[partition] = end - 1
        self._taken_over.pop(partition, None)

    def advance(self, partition: int, offset: int) -> None:
        """Remember that a store holds all of its changelog up to an offset."""
        self.stores.set_offset(partition, offset)
        self.last_known[partition] = offset

    def merge(self, partition: int, records: Iterable[Record], overwritten: dict[bytes, bytes]) -> list[bytes]:
        """Take records of the changelog into a store where they are newer; note in `overwritten` what others hide.

        Returns the keys whose value it changed.
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
                # of two of one offset the later is right, and of ours the later is in the store
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
        """Read and merge [first, end), which no ack of ours covers; returns what has to be put back."""
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
                "another worker wrote to our changelog topic=%s partition=%d from=%d records=%d put_back=%d",
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
        """Find the records that are neither on our books nor what the store holds anyway."""
        unacked = self._unacked.get(partition, {})
        unknown = [record for record in records if hash((record.key, record.value)) not in unacked]
        keys = list(dict.fromkeys(cast(bytes, record.key) for record in unknown))
        held = dict(zip(keys, self.stores.get(partition, keys), strict=True))
        return [record for record in unknown if record.value is None or held[cast(bytes, record.key)] != record.value]

    async def look_for_foreign(self, producer: aiokafka.AIOKafkaProducer) -> None:
        """Find records of another worker on partitions that we have not appended to since it wrote."""
        async with self.lock:
            self._forget_unacked()
            tps = []
            for partition in self.last_known:
                if all(own.sent.acked.done() for own in self._pending.get(partition, ())):
                    while pending := self._pending.get(partition):
                        await self._settle_after_gap(producer, pending[0])
                        if not all(own.sent.acked.done() for own in self._pending.get(partition, ())):
                            break  # something was put back: its ack will tell
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
                    await self.put_back(producer, tp.partition, overwritten)

    def _forget_unacked(self) -> None:
        before = time.monotonic() - UNACKED_KEPT_S
        for partition, unacked in self._unacked.items():
            self._unacked[partition] = {pair: sent_at for pair, sent_at in unacked.items() if sent_at > before}


def _failed(sent: Append) -> bool:
    return sent.acked.done() and _base_offset(sent) is None


def _base_offset(sent: Append) -> int | None:
    """Give where an append that is done begins in the log; None if it is not known to be there."""
    if sent.acked.cancelled() or sent.acked.exception() is not None:
        return None
    base: int = sent.acked.result().offset
    return base
