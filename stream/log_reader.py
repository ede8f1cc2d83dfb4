"""Reading a stretch of partitions outside the consumer group, as restores, repairs and checks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiokafka
from aiokafka import ConsumerRecord, TopicPartition

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"
"""A record as it came: key and value are bytes, or None."""

FETCH_BYTES = 8 * 2**20  # a partition's share of a fetch: large, since a restore is nothing but fetching


@asynccontextmanager
async def log_reader(client_options: Mapping[str, Any]) -> AsyncIterator[aiokafka.AIOKafkaConsumer]:
    """Open a consumer that belongs to no group and commits nothing."""
    consumer = aiokafka.AIOKafkaConsumer(
        **client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    await asyncio.sleep(0)  # a task of aiokafka's that is cancelled before it began makes stop() raise CancelledError
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read_stretch(
    consumer: aiokafka.AIOKafkaConsumer, stretches: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncIterator[tuple[TopicPartition, Sequence[Record]]]:
    """Yield the records of each partition from its first offset up to, not including, its last one."""
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
            inside = records if records[-1].offset < last else [r for r in records if r.offset < last]
            if inside:
                yield tp, inside
        # by position and not by the last record seen: compaction may have taken the stretch's last records
        for tp in list(todo):
            if await consumer.position(tp) >= stretches[tp][1]:
                todo.discard(tp)
