"""Read topics without a consumer group: to their end, or following them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from stream.clients.connection import client_options, explained, missing_topic, require_broker
from trainer.data.log_reader import LogReader, TopicMissing

POLL_MS = 500


def read_to_end(bootstrap: str, topic: str) -> Iterator[Any]:
    """Yield the topic's records up to its current end, in order within a partition."""
    require_broker(bootstrap)
    with explained(bootstrap):
        reader = LogReader(topic, client_options(bootstrap, "hrnn-read"))
        try:
            for records, _ in reader.read(reader.bounds()):
                yield from records
        except TopicMissing:
            raise missing_topic(bootstrap, topic) from None
        finally:
            reader.close()


def follow(bootstrap: str, topic: str, *, from_beginning: bool) -> Iterator[Any]:
    """Yield the topic's records forever, as they arrive."""
    require_broker(bootstrap)
    with explained(bootstrap):
        consumer = KafkaConsumer(
            **client_options(bootstrap, "hrnn-watch"),
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
        )
        try:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise missing_topic(bootstrap, topic)
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            if from_beginning:
                consumer.seek_to_beginning(*partitions)
            else:
                # the current end, not the end at the first poll: records in between must be seen
                for tp, end in consumer.end_offsets(partitions).items():
                    consumer.seek(tp, end)
            while True:
                for records in consumer.poll(timeout_ms=POLL_MS).values():
                    yield from records
        finally:
            consumer.close()
