"""Access to the aiokafka client under Faust's consumer, which runs in its own loop and thread."""

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
    """Return a topic's number of partitions from the client's metadata, which may be minutes old."""
    return len(_client(consumer)._client.cluster.partitions_for_topic(topic) or ())


async def refresh_metadata(consumer: BatchConsumer) -> None:
    """Refresh the client's metadata now: the group's leader then reassigns topics that have changed."""

    async def refresh() -> None:
        await _client(consumer)._client.force_metadata_update()

    await _thread(consumer).call_thread(refresh)


async def set_back(consumer: BatchConsumer, offsets: Mapping[TP, int]) -> None:
    """Commit offsets, even lower ones than before; raises KafkaError, where Faust's commit would crash the app."""
    committed = {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
    await _thread(consumer).call_thread(_client(consumer).commit, committed)
