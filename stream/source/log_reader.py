"""Read ranges of partitions without a consumer group, for restores, repairs and checks."""

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

FETCH_BYTES = 8 * 2**20  # a partition's share of a fetch: large, since a restore only fetches
HOLE_CHECK_S = 5.0

record_batches.install()  # an unreadable record must not end a restore or a feed


@asynccontextmanager
async def log_reader(
    client_options: Mapping[str, Any], *, committed: bool = False
) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
    """Open a consumer without a group. It commits nothing.

    `committed` is for logs that clients write: aborted records are skipped, and reading ends at an open transaction.
    The workers' own logs are read to their end: a client's open transaction must not hide a worker's records.
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
        await consumer.stop()  # it holds a connected client
        raise
    await asyncio.sleep(0)  # if an aiokafka task is cancelled before it began, stop() raises CancelledError
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
    """Yield the records of each partition in [first, end).

    With `unreadable`, an UnreadableBatch stands for records that can't be read; without it they are only logged. A
    consumer of committed records ends before the first open transaction.
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
        # by position, not by the last record: compaction may have removed the last records
        for tp in list(todo):
            position = await consumer.position(tp)
            if position >= stretches[tp][1]:
                todo.discard(tp)
            elif _is_before_open_transaction(consumer, tp, position):
                log.warning(
                    "read stopped at an open transaction topic=%s partition=%d offset=%d end=%d",
                    *(tp.topic, tp.partition, position, stretches[tp][1]),
                )
                todo.discard(tp)


def _is_before_open_transaction(consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition, position: int) -> bool:
    if consumer._isolation_level != "read_committed":
        return False
    stable, highwater = consumer.last_stable_offset(tp), consumer.highwater(tp)
    return stable is not None and highwater is not None and 0 <= stable <= position < highwater


async def is_hole(client_options: Mapping[str, Any], tp: TopicPartition, first: int, end: int) -> bool:
    """Return whether a second reader finds no record in [first, end): retention leaves holes, a race does not."""
    try:
        async with log_reader(client_options, committed=True) as reader:
            reader.assign([tp])
            reader.seek(tp, first)
            until = time.monotonic() + HOLE_CHECK_S
            while (left_s := until - time.monotonic()) > 0:
                fetched = await reader.getmany(tp, timeout_ms=int(min(left_s, 0.5) * 1000), max_records=1)
                if stretch := cast(Stretch | None, fetched.get(tp)):
                    # if no record follows yet, a stretch that covers the end shows that the range is empty
                    if len(stretch):
                        return stretch.first_offset == end
                    if stretch.end >= end:
                        return True
    except KafkaError as error:
        log.warning("check of a log hole failed, retrying topic=%s partition=%d: %s", tp.topic, tp.partition, error)
    return False
