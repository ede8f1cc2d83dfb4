"""Reading a stretch of partitions outside the consumer group, as restores, repairs and checks do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream.source import record_batches
from stream.source.record_batches import Record as Record
from stream.source.record_batches import Stretch, UnreadableBatch

log = logging.getLogger(__name__)

FETCH_BYTES = 8 * 2**20  # a partition's share of a fetch: large, since a restore is nothing but fetching
HOLE_CHECK_S = 5.0

record_batches.install()  # no record may end a restore, or a feed


@asynccontextmanager
async def log_reader(
    client_options: Mapping[str, Any], *, committed: bool = False
) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
    """Open a consumer that belongs to no group and commits nothing.

    `committed` is for logs that clients write: what a transaction aborted is not read, nor what follows an open one.
    Workers' own logs are read to their end: a client's open transaction there must not hide what a worker wrote.
    """
    consumer = aiokafka.AIOKafkaConsumer(
        **client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    try:
        await consumer.start()
    except BaseException:
        await consumer.stop()  # it holds a client that has asked for brokers
        raise
    await asyncio.sleep(0)  # a task of aiokafka's that is cancelled before it began makes stop() raise CancelledError
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read_stretch(
    consumer: aiokafka.AIOKafkaConsumer,
    stretches: Mapping[TopicPartition, tuple[int, int]],
    *,
    unreadable: bool = False,
) -> AsyncIterator[tuple[TopicPartition, Sequence[Record]]]:
    """Yield the records of each partition from its first offset up to, not including, its last one.

    `unreadable` gives what stands for records that can't be read, too; without it they are only logged. A consumer of
    committed records ends before the first transaction that is open.
    """
    todo = {tp for tp, (first, last) in stretches.items() if first < last}
    if not todo:
        return
    consumer.assign(list(todo))
    for tp in todo:
        consumer.seek(tp, stretches[tp][0])
    while todo:
        fetched = await consumer.getmany(*todo, timeout_ms=500)
        for tp, records in fetched.items():
            last = stretches[tp][1]
            inside = [
                record
                for record in records
                if record.offset < last and (unreadable or not isinstance(record, UnreadableBatch))
            ]
            if inside:
                yield tp, inside
        # by position and not by the last record seen: compaction may have taken the stretch's last records
        for tp in list(todo):
            position = await consumer.position(tp)
            if position >= stretches[tp][1]:
                todo.discard(tp)
            elif _is_before_open_transaction(consumer, tp, position):
                log.warning(
                    "reading ends before an open transaction topic=%s partition=%d offset=%d instead of %d",
                    *(tp.topic, tp.partition, position, stretches[tp][1]),
                )
                todo.discard(tp)


def _is_before_open_transaction(consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition, position: int) -> bool:
    if consumer._isolation_level != "read_committed":
        return False
    stable, highwater = consumer.last_stable_offset(tp), consumer.highwater(tp)
    return stable is not None and highwater is not None and 0 <= stable <= position < highwater


async def is_hole(client_options: Mapping[str, Any], tp: TopicPartition, first: int, end: int) -> bool:
    """Tell whether a reader of its own finds no record in [first, end): retention leaves holes, a race does not."""
    try:
        async with log_reader(client_options, committed=True) as reader:
            reader.assign([tp])
            reader.seek(tp, first)
            until = time.monotonic() + HOLE_CHECK_S
            while (left_s := until - time.monotonic()) > 0:
                fetched = await reader.getmany(tp, timeout_ms=int(min(left_s, 0.5) * 1000), max_records=1)
                if stretch := cast(Stretch | None, fetched.get(tp)):
                    # nothing may follow at once: the stretch that covers the end then says that all before is empty
                    if len(stretch):
                        return stretch.first_offset == end
                    if stretch.end >= end:
                        return True
    except KafkaError as error:
        log.warning("could not look into a hole, will again topic=%s partition=%d: %s", tp.topic, tp.partition, error)
    return False
