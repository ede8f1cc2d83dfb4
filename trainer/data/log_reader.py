"""Read a topic from given offsets to its end at the start of the read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

STALL_S = 60.0  # a restarting broker is back within this time
ANSWER_MS = 10_000  # a stop must not wait longer for an unreachable broker
METADATA_MS = 30_000  # a re-created topic, or added partitions, are detected within this time
log = logging.getLogger(__name__)


class TopicMissing(RuntimeError):
    """A topic that does not exist (yet)."""


class LogReader:
    """A consumer of one topic, without a group. Keys and values are bytes."""

    def __init__(self, topic: str, client_options: Mapping[str, Any]) -> None:
        """Connect; raises kafka.errors.KafkaError if no broker answers."""
        self.topic = topic
        self._consumer = KafkaConsumer(
            **client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            request_timeout_ms=ANSWER_MS,
            bootstrap_timeout_ms=ANSWER_MS,
            metadata_max_age_ms=METADATA_MS,
            max_poll_records=10_000,  # a poll costs about as much as 20 records
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def identity(self) -> str:
        """Return the ids of the cluster and the topic; empty if the brokers have none.

        A re-created topic has another id, even with the same name and offsets.
        """
        cluster = self._consumer._cluster  # kafka-python has no public access to the topic id
        topic_id = cluster.topic_id(self.topic)
        return f"{cluster.cluster_id}/{topic_id}" if cluster.cluster_id and topic_id else ""

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Return each partition's first offset and its end offset; raises TopicMissing."""
        numbers = self._consumer.partitions_for_topic(self.topic)
        if not numbers:
            raise TopicMissing(f"topic {self.topic!r} does not exist")
        partitions = [TopicPartition(self.topic, number) for number in sorted(numbers)]
        firsts = self._consumer.beginning_offsets(partitions)
        ends = self._consumer.end_offsets(partitions)
        return {p.partition: (firsts[p], ends[p]) for p in partitions}

    def read(
        self,
        spans: Mapping[int, tuple[int, int]],
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[list[Any], dict[int, int]]]:
        """Yield records and the next offsets, until each partition's span [from, to) is read.

        Compaction leaves holes, so the consumer's position decides, not the records. Raises TimeoutError without a
        record for STALL_S.
        """
        ends = {TopicPartition(self.topic, n): to for n, (start, to) in spans.items() if start < to}
        self._consumer.assign(list(ends))
        for partition in ends:
            self._consumer.seek(partition, spans[partition.partition][0])
        moved_at = time.monotonic()
        while ends and not stopping():
            fetched = self._consumer.poll(timeout_ms=500)
            positions = {p: self._consumer.position(p) for p in ends}
            done = [p for p, position in positions.items() if position >= ends[p]]
            if fetched or done:
                moved_at = time.monotonic()
                records = [
                    record for p, some in fetched.items() if p in ends for record in some if record.offset < ends[p]
                ]
                yield records, {p.partition: min(positions[p], ends[p]) for p in ends}
            elif time.monotonic() - moved_at > STALL_S:
                raise TimeoutError(f"{self.topic}: read timeout, no record for {STALL_S:.0f} s; {positions} of {ends}")
            for partition in done:
                del ends[partition]
                self._consumer.pause(partition)
        self._consumer.unsubscribe()
