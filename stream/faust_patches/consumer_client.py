"""The aiokafka client under Faust's consumer, for what Faust does not offer; it has a loop and thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from faust.types import TP

from stream.faust_patches.delivery import BatchConsumer


def _client(consumer: BatchConsumer) -> aiokafka.AIOKafkaConsumer:
    return cast(aiokafka.AIOKafkaConsumer, _thread(consumer)._ensure_consumer())


def _thread(consumer: BatchConsumer) -> Any:
    return cast(Any, consumer._thread)


def known_partitions(consumer: BatchConsumer, topic: str) -> int:
    """Count a topic's partitions as the client's metadata has them, which may be minutes old."""
    return len(_client(consumer)._client.cluster.partitions_for_topic(topic) or ())


async def refresh_metadata(consumer: BatchConsumer) -> None:
    """Have the client ask for metadata now: the group's leader then deals out what topics it finds changed."""

    async def refresh() -> None:
        await _client(consumer)._client.force_metadata_update()

    await _thread(consumer).call_thread(refresh)


async def set_back(consumer: BatchConsumer, offsets: Mapping[TP, int]) -> None:
    """Commit offsets whatever they were before; raises KafkaError, where Faust's own commit would crash the app."""
    committed = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
    await _thread(consumer).call_thread(_client(consumer).commit, committed)
