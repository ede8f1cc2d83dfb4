"""Writing states to RocksDB and to the changelog, and seeing to it that nobody else does.

What it mends, and where Faust 0.15.3 has it:

- a table write is a changelog record of its own, 300-400 µs (`Collection.send_changelog`, tables/base.py): here a
  partition's states are one `WriteBatch` and one record batch;
- a changelog record that the broker refused logs one warning and the source offset is committed all the same
  (`Topic._on_published`, topics.py): here every append is awaited;
- the offset of any append of ours becomes the persisted offset (`Collection._on_changelog_sent`, tables/base.py), also
  when another worker, that believes itself the owner still, appended in between; the next restore then skips its
  records. Here an append must land right after our last one; if not, what lies between is read, merged by applied
  offset, and what it had overwritten is put back.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import aiokafka
import rocksdict
from aiokafka import TopicPartition
from faust.types import TP

from stream.log_reader import Record, log_reader, read_stretch
from stream.sending import Append, append

log = logging.getLogger(__name__)


class Changelog:
    """One table's stores and their durable copy.

    Arguments:
        table: the Faust table; keys and values are raw bytes.
        applied_offset: reads from a value the offset of the last event that it has applied: of two values of one key
            the one with the higher offset is right, whatever order the changelog has them in.
        client_options: for the reader of records that somebody else wrote.
        on_foreign: told how many records somebody else had written.
    """

    def __init__(
        self,
        table: Any,
        applied_offset: Callable[[bytes], int],
        client_options: Mapping[str, Any],
        on_foreign: Callable[[int], None],
    ) -> None:
        self.table = table
        self.topic: str = table.changelog_topic_name
        self._applied_offset = applied_offset
        self._client_options = client_options
        self._on_foreign = on_foreign
        # held from reading a value to queueing what became of it: what is queued last must be the newest
        self.lock = asyncio.Lock()
        self.last_known: dict[int, int] = {}  # per partition: up to here every record is ours, or read and merged

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """Read the values of many keys at once; a store that turns out damaged is deleted, for the next start."""
        store = self.table.data
        try:
            values: list[bytes | None] = store._db_for_partition(partition).get(keys)
        except Exception as error:
            if str(error).startswith("Corruption"):  # rocksdict raises plain Exception
                # its handle stays open: one that is opened anew would be empty, and be given an offset all the same
                shutil.rmtree(store.partition_path(partition), ignore_errors=True)
            raise
        return values

    async def write(
        self, producer: aiokafka.AIOKafkaProducer, partition: int, values: Mapping[bytes, bytes]
    ) -> list[Append]:
        """Put values to the store, then queue them for the changelog: a store ahead of it is mended by redelivery."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        self.table.data._db_for_partition(partition).write(batch)
        return await append(producer, self.topic, partition, values.items())

    async def confirm(self, producer: aiokafka.AIOKafkaProducer, appends: Iterable[Append]) -> None:
        """Await the broker's acks, in order, and advance the persisted offset over what is ours."""
        waiting = deque(appends)
        while waiting:
            sent = waiting.popleft()
            base: int = (await sent.acked).offset
            expected = self.last_known.get(sent.partition, -1) + 1
            if base < expected:
                continue  # a restore, or a merge of what surrounds it, has read it
            if base == expected:
                self.advance(sent.partition, base + sent.records - 1)
                continue
            async with self.lock:
                overwritten = await self._merge_foreign(sent.partition, expected, base)
                self.advance(sent.partition, base + sent.records - 1)
                waiting.extend(await append(producer, self.topic, sent.partition, overwritten.items()))

    def advance(self, partition: int, offset: int) -> None:
        """Remember that a store holds all of its changelog up to an offset."""
        self.last_known[partition] = offset
        self.table.data.set_persisted_offset(TP(self.topic, partition), offset)

    def merge(self, partition: int, records: Iterable[Record], overwritten: dict[bytes, bytes]) -> None:
        """Take records of the changelog into a store where they are newer; note in `overwritten` what others hide."""
        db = self.table.data._db_for_partition(partition)
        batch = rocksdict.WriteBatch(raw_mode=True)
        newest: dict[bytes, bytes | None] = {}
        for record in records:
            key, value = cast(bytes, record.key), record.value
            held = newest[key] if key in newest else db.get(key)
            if value is not None and held is not None and self._applied_offset(held) > self._applied_offset(value):
                overwritten[key] = held
                continue
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
            newest[key] = value
            overwritten.pop(key, None)
        db.write(batch)

    async def _merge_foreign(self, partition: int, first: int, end: int) -> dict[bytes, bytes]:
        """Read and merge what another worker appended in [first, end); returns what has to be put back."""
        overwritten: dict[bytes, bytes] = {}
        seen = 0
        aio_tp = TopicPartition(self.topic, partition)
        async with log_reader(self._client_options) as reader:
            async for _, records in read_stretch(reader, {aio_tp: (first, end)}):
                self.merge(partition, records, overwritten)
                seen += len(records)
        log.warning(
            "another worker wrote to our changelog topic=%s partition=%d from=%d records=%d put_back=%d",
            *(self.topic, partition, first, seen, len(overwritten)),
        )
        self._on_foreign(seen)
        return overwritten

    async def look_for_foreign(self, producer: aiokafka.AIOKafkaProducer, busy: Callable[[], bool]) -> None:
        """Find records of another worker on partitions that we have not appended to since it wrote.

        `busy` tells whether appends of ours are on their way: they would be taken for another's.
        """
        sent: list[Append] = []
        async with self.lock:
            tps = [TopicPartition(self.topic, p) for p in self.last_known]
            if not tps or busy():
                return
            async with log_reader(self._client_options) as reader:
                ends = await reader.end_offsets(tps)
            for tp, end in ends.items():
                first = self.last_known.get(tp.partition, end) + 1
                if first < end:
                    overwritten = await self._merge_foreign(tp.partition, first, end)
                    self.advance(tp.partition, end - 1)
                    sent += await append(producer, self.topic, tp.partition, overwritten.items())
            for put_back in sent:  # before the next write: its append must not be awaited in another's place
                self.advance(put_back.partition, (await put_back.acked).offset + put_back.records - 1)
